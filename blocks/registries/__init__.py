"""Container registries."""

__all__ = ["oci", "oci_client"]
