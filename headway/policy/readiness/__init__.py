"""Production readiness: a checklist of verified items and of attested items, whose attestations expire."""

__all__ = ["checklist", "endpoint_checks", "repository_checks", "vulnerability_scan"]
