"""Long-running processes: HTTP API, controllers, Prefect client and server, local stack."""

__all__ = ["api", "apps", "child_process", "controllers", "demo", "prefect", "stack", "systemd_unit"]
