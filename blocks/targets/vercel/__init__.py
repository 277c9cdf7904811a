"""Target of a Vercel project."""

__all__ = ["client", "platform", "target"]
