"""Target of a Railway service."""

__all__ = ["client", "platform", "target"]
