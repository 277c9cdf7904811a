"""The ASGI app: health, webhooks, and what goes on beside them."""

from headway.service.api.app import app

__all__ = ["app"]
