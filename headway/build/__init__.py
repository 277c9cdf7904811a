"""From a commit to an artifact: bundles, images, SBOM, Dockerfile lint, scaffold, test reports, secret scan."""
