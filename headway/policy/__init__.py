"""Pure decisions: triggers, nightly releases, preview environments, schema migration safety, production readiness."""
