"""Where business metrics come from: one file each. A new one passes tests/contracts/test_metric_source.py."""
