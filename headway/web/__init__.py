"""The ASGI app: health, and the sweep that closes what nobody closed."""

from headway.web.app import app

__all__ = ["app"]
