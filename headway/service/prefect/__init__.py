"""Everything that knows Prefect's server: client, registration, server, fork server."""

__all__ = ["client", "connections", "fork_server", "project", "server"]
