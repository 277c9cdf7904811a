"""Prefect's server: client, registration, server process, fork server."""

__all__ = ["client", "connections", "fork_server", "project", "server"]
