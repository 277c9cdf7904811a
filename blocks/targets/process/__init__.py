"""Target of local processes under supervisord, behind Envoy."""

__all__ = ["platform", "target"]
