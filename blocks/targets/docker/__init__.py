"""Target of containers on a Docker Engine, behind Envoy."""

__all__ = ["cleanup", "containers", "network", "platform", "target"]
