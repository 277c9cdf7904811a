"""Target of containers on a Docker Engine, behind Envoy."""

__all__ = ["containers", "platform", "target"]
