"""Targets: one package for each platform. Each passes the port contract suite, `headway.testing.contracts`."""

__all__ = ["docker", "kubernetes", "process", "railway", "vercel"]
