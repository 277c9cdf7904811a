"""Target of containers on a Docker Engine, behind Envoy."""
