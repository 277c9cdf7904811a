"""The ASGI app: webhooks, the HTTP API and health."""

from headway.service.api.app import app

__all__ = ["app"]
