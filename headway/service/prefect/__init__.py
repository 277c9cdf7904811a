"""Everything that knows Prefect's server: client, registration, server, fork server."""
