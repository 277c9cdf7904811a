"""The Envoy proxy in front of an app: process, xDS configuration from traffic weights, request counts."""

__all__ = ["bootstrap", "proxy", "xds", "xds_server"]
