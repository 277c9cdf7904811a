"""The Envoy proxy in front of an app: process, xDS configuration from traffic weights, request counts."""

__all__ = ["bootstrap", "proxy", "routes", "statistics", "xds", "xds_server"]
