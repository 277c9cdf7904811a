"""Headway takes every merge to production, and rolls back by itself."""

from headway import _moved

_moved.install()
