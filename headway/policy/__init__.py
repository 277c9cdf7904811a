"""Pure decisions: triggers, nightly releases, preview environments, schema migration safety, production readiness."""

__all__ = ["nightly", "previews", "readiness", "schema_migrations", "trigger_rules"]
