"""Production readiness: a checklist of verified items and of attested items, whose attestations expire."""
