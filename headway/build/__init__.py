"""Build an artifact from a commit: bundles, images, SBOM, Dockerfile lint, scaffold, test reports, secret scan."""

__all__ = [
    "bundles",
    "docker_engine",
    "dockerfiles",
    "images",
    "retention",
    "sbom",
    "scaffold",
    "secret_scan",
    "test_reports",
]
