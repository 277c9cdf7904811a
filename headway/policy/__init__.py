"""Pure decisions: triggers, nightly releases, preview environments, schema migration safety, production readiness."""

__all__ = ["nightly", "previews", "readiness", "receipts", "schema_migrations", "trigger_rules"]
