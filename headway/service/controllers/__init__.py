"""Background controllers: each compares recorded state with actual state and corrects the difference."""

from headway.service.controllers.base import Controller

__all__ = ["Controller"]
