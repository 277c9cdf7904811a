"""Long-running processes: HTTP API, controllers, Prefect client and server, local stack."""

__all__ = ["api", "child_process", "controllers", "demo", "prefect", "stack"]
