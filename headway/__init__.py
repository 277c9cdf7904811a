"""Headway takes every merge to production, and rolls back automatically."""

from headway import _moved

_moved.install()
