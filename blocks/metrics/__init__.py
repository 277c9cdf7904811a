"""Metric sources: one module each. Each passes tests/contracts/test_metric_source.py."""

__all__ = ["prometheus"]
