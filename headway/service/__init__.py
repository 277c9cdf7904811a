"""Long-running processes: HTTP API, controllers, Prefect client and server, local stack."""
