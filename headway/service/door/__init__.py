"""The door: one origin for Headway's pages, API and webhooks, and for Prefect's UI and API, behind one sign-in."""

__all__ = ["envoy", "prefect_routes"]
