"""Fakes and port contract tests, for the tests of whatever is built on Headway."""

from __future__ import annotations

from headway.testing.fakes import FakeGitHost, FakeSecretStore, FakeTarget

__all__ = ["FakeGitHost", "FakeSecretStore", "FakeTarget"]
