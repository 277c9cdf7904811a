"""Tables of the ledger. A test compares them with the result of migrations/."""

from __future__ import annotations

from datetime import UTC, datetime

import sqlalchemy as sa
from sqlalchemy.engine import Dialect

__all__ = ["REVISION", "metadata"]

REVISION = "0032"
"""The newest migration. Comparing it with the database needs no import of Alembic, which is slow."""


class Utc(sa.TypeDecorator[datetime]):
    """Times in UTC. SQLite drops the time zone, PostgreSQL returns its own."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value.astimezone(UTC) if value else None

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


ObjectId = sa.String(40).with_variant(sa.String(64), "postgresql")
"""Id of a commit or tree, SHA-1 or SHA-256. SQLite ignores the length, and would have to copy a table to change it."""

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

releases = sa.Table(
    "releases",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("app", sa.String(63), nullable=False),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("repo", sa.Text, nullable=False),
    sa.Column("ref", sa.Text, nullable=False),
    sa.Column("flow_run_id", sa.String(36), unique=True),
    sa.Column("requested_by", sa.Text, nullable=False),
    sa.Column("state", sa.String(16), nullable=False, index=True),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("started_at", Utc, nullable=False),
    sa.Column("finished_at", Utc),
    sa.Column("sha", ObjectId, index=True),
    sa.Column("tree", ObjectId),
    sa.Column("author", sa.Text),
    sa.Column("subject", sa.Text),
    sa.Column("committed_at", Utc),
    sa.Column("digest", sa.String(71)),
    sa.UniqueConstraint("app", "number"),
)

stages = sa.Table(
    "stages",
    metadata,
    sa.Column("release_id", sa.ForeignKey(releases.c.id), primary_key=True),
    sa.Column("name", sa.String(80), primary_key=True),
    sa.Column("position", sa.Integer, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("detail", sa.Text, nullable=False),
    sa.Column("started_at", Utc, nullable=False),
    sa.Column("finished_at", Utc),
)

heartbeats = sa.Table(
    "heartbeats",
    metadata,
    sa.Column("flow_run_id", sa.String(36), primary_key=True),
    sa.Column("host", sa.Text, nullable=False),
    sa.Column("boot", sa.Text, nullable=False),
    sa.Column("pid", sa.Integer, nullable=False),
    sa.Column("created", sa.Float, nullable=False),
    sa.Column("beat_at", Utc, nullable=False),
)

release_inputs = sa.Table(
    "release_inputs",
    metadata,
    sa.Column("release_id", sa.ForeignKey(releases.c.id), primary_key=True),
    sa.Column("name", sa.String(80), primary_key=True),
    sa.Column("value", sa.JSON, nullable=False),
)

revisions = sa.Table(
    "revisions",
    metadata,
    sa.Column("app", sa.String(63), primary_key=True),
    sa.Column("environment", sa.String(63), primary_key=True),
    sa.Column("id", sa.String(20), primary_key=True),
    sa.Column("sha", ObjectId, nullable=False),
    sa.Column("revision", sa.JSON, nullable=False),
    sa.Column("spec", sa.JSON, nullable=False),
    sa.Column("saved_at", Utc, nullable=False),
)

rollouts = sa.Table(
    "rollouts",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("sequence", sa.Integer, nullable=False),
    sa.Column("release_id", sa.ForeignKey(releases.c.id), index=True),
    sa.Column("app", sa.String(63), nullable=False),
    sa.Column("environment", sa.String(63), nullable=False),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("state", sa.String(16), nullable=False, index=True),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("token", sa.Integer, nullable=False),
    sa.Column("plan", sa.JSON, nullable=False),
    sa.Column("started_at", Utc, nullable=False),
    sa.Column("finished_at", Utc),
    sa.Column("url", sa.Text),
    sa.UniqueConstraint("app", "environment", "sequence"),
)

steps = sa.Table(
    "steps",
    metadata,
    sa.Column("rollout_id", sa.ForeignKey(rollouts.c.id), primary_key=True),
    sa.Column("position", sa.Integer, primary_key=True),
    sa.Column("title", sa.Text, nullable=False),
    sa.Column("outcome", sa.String(16)),
    sa.Column("detail", sa.Text, nullable=False),
    sa.Column("started_at", Utc, nullable=False),
    sa.Column("finished_at", Utc),
    sa.Column("requests", sa.Integer),
    sa.Column("failed", sa.Integer),
    sa.Column("worst", sa.Float),
)

orders = sa.Table(
    "orders",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("rollout_id", sa.ForeignKey(rollouts.c.id), nullable=False, index=True),
    sa.Column("order", sa.JSON, nullable=False),
    sa.Column("via", sa.String(16), nullable=False),
    sa.Column("given_at", Utc, nullable=False),
    sa.Column("taken_at", Utc),
)

measurements = sa.Table(
    "measurements",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("rollout_id", sa.ForeignKey(rollouts.c.id), nullable=False, index=True),
    sa.Column("position", sa.Integer, nullable=False),
    sa.Column("reading", sa.JSON, nullable=False),
)

approvals = sa.Table(
    "approvals",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("release_id", sa.ForeignKey(releases.c.id), nullable=False),
    sa.Column("environment", sa.String(63), nullable=False),
    sa.Column("revision", sa.String(20), nullable=False),
    sa.Column("state", sa.String(16), nullable=False, index=True),
    sa.Column("evidence", sa.JSON, nullable=False),
    sa.Column("by", sa.JSON, nullable=False),
    sa.Column("not_author", sa.Boolean, nullable=False),
    sa.Column("requested_at", Utc, nullable=False),
    sa.Column("expires_at", Utc, nullable=False),
    sa.Column("decided_at", Utc),
    sa.Column("decided_by", sa.Text),
    sa.Column("reason", sa.Text),
    sa.Column("via", sa.String(16)),
    sa.Column("asks", sa.String(40), nullable=False),
    sa.Column("count", sa.Integer, nullable=False),
    sa.Column("round", sa.Integer, nullable=False),
    sa.Column("form", sa.Integer, nullable=False),
    sa.Column("form_after", sa.Integer, nullable=False),
    sa.UniqueConstraint("release_id", "environment", "revision", "asks", "round"),
)

approval_decisions = sa.Table(
    "approval_decisions",
    metadata,
    sa.Column("approval_id", sa.ForeignKey(approvals.c.id), primary_key=True),
    sa.Column("person", sa.String(255), primary_key=True),
    sa.Column("principal", sa.JSON, nullable=False),
    sa.Column("decision", sa.String(16), nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("via", sa.String(16), nullable=False),
    sa.Column("decided_at", Utc, nullable=False),
)

schema_changes = sa.Table(
    "schema_changes",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("release_id", sa.ForeignKey(releases.c.id), nullable=False),
    sa.Column("app", sa.String(63), nullable=False),
    sa.Column("environment", sa.String(63), nullable=False),
    sa.Column("revision", sa.String(20), nullable=False),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("state", sa.String(16), nullable=False, index=True),
    sa.Column("files", sa.JSON, nullable=False),
    sa.Column("detail", sa.Text, nullable=False),
    sa.Column("output", sa.Text, nullable=False),
    sa.Column("decided_at", Utc, nullable=False),
    sa.Column("due_at", Utc),
    sa.Column("started_at", Utc),
    sa.Column("finished_at", Utc),
)

locks = sa.Table(
    "locks",
    metadata,
    sa.Column("app", sa.String(63), primary_key=True),
    sa.Column("environment", sa.String(63), primary_key=True),
    sa.Column("holder", sa.Text),
    sa.Column("revision", sa.Text),
    sa.Column("token", sa.Integer, nullable=False),
    sa.Column("acquired_at", Utc),
    sa.Column("expires_at", Utc),
)

queue = sa.Table(
    "queue",
    metadata,
    sa.Column("release_id", sa.ForeignKey(releases.c.id), primary_key=True),
    sa.Column("app", sa.String(63), primary_key=True),
    sa.Column("environment", sa.String(63), primary_key=True),
)

checks = sa.Table(
    "checks",
    metadata,
    sa.Column("key", sa.String(64), primary_key=True),
    sa.Column("release_id", sa.ForeignKey(releases.c.id), nullable=False),
    sa.Column("report", sa.JSON, nullable=False),
)

coverages = sa.Table(
    "coverages",
    metadata,
    sa.Column("release_id", sa.ForeignKey(releases.c.id), primary_key=True),
    sa.Column("check", sa.String(80), primary_key=True),
    sa.Column("coverage", sa.JSON, nullable=False),
)

apps = sa.Table(
    "apps",
    metadata,
    sa.Column("name", sa.String(63), primary_key=True),
    sa.Column("repo", sa.Text, nullable=False),
    sa.Column("place", sa.Text, nullable=False, unique=True),
    sa.Column("host", sa.String(16), nullable=False),
    sa.Column("secret", sa.String(255), nullable=False),
    sa.Column("reports", sa.String(80)),
    sa.Column("branch", sa.String(255)),
    sa.Column("added_at", Utc, nullable=False),
    sa.Column("added_by", sa.Text, nullable=False),
)

inbox = sa.Table(
    "inbox",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("app", sa.String(63), nullable=False),
    sa.Column("delivery", sa.String(255), nullable=False),
    sa.Column("position", sa.Integer, nullable=False),
    sa.Column("event", sa.JSON, nullable=False),
    sa.Column("ref", sa.Text, nullable=False),
    sa.Column("received_at", Utc, nullable=False),
    sa.Column("state", sa.String(16), nullable=False, index=True),
    sa.Column("detail", sa.Text, nullable=False),
    sa.Column("tries", sa.Integer, nullable=False),
    sa.Column("due_at", Utc, nullable=False),
    sa.Column("sha", ObjectId),
    sa.Column("flow_run_id", sa.String(36), index=True),
    sa.Column("followed_by", sa.ForeignKey("inbox.id")),
    sa.UniqueConstraint("app", "delivery", "position"),
    sa.Index("ix_inbox_app_ref", "app", "ref"),
)

previews = sa.Table(
    "previews",
    metadata,
    sa.Column("app", sa.String(63), primary_key=True),
    sa.Column("of", sa.String(63), nullable=False),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("mark", sa.String(32), nullable=False),
    sa.Column("head", ObjectId, nullable=False),
    sa.Column("fork", sa.Boolean, nullable=False),
    sa.Column("url", sa.Text),
    sa.Column("opened_at", Utc, nullable=False),
    sa.Column("updated_at", Utc, nullable=False),
    sa.Column("expires_at", Utc),
    sa.Column("closed_at", Utc),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("told", sa.Boolean, nullable=False),
    sa.Column("given_up_at", Utc),
    sa.UniqueConstraint("of", "number"),
)

reported_statuses = sa.Table(
    "told",
    metadata,
    sa.Column("release_id", sa.ForeignKey(releases.c.id), primary_key=True),
    sa.Column("name", sa.String(100), primary_key=True),
    sa.Column("said", sa.Text, nullable=False),
)

prefect_requests = sa.Table(
    "prefect_requests",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("principal", sa.JSON, nullable=False),
    sa.Column("method", sa.String(8), nullable=False),
    sa.Column("path", sa.Text, nullable=False),
    sa.Column("flow_run_id", sa.String(36), index=True),
    sa.Column("requested_at", Utc, nullable=False),
    sa.Index("ix_prefect_requests_path_requested_at", "path", "requested_at"),
)

grants = sa.Table(
    "grants",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("subject", sa.String(255), nullable=False),
    sa.Column("role", sa.String(16), nullable=False),
    sa.Column("app", sa.String(63)),
    sa.Column("granted_at", Utc, nullable=False),
    sa.Column("granted_by", sa.Text, nullable=False),
    sa.Column("revoked_at", Utc),
    sa.Column("revoked_by", sa.Text),
)

members = sa.Table(
    "members",
    metadata,
    sa.Column("group", sa.String(255), primary_key=True),
    sa.Column("member", sa.String(255), primary_key=True),
    sa.Column("source", sa.String(16), primary_key=True),
    sa.Column("since", Utc, nullable=False),
)

tokens = sa.Table(
    "tokens",
    metadata,
    sa.Column("name", sa.String(63), primary_key=True),
    sa.Column("owner", sa.String(255), nullable=False),
    sa.Column("digest", sa.String(64), nullable=False, unique=True),
    sa.Column("scope", sa.JSON, nullable=False),
    sa.Column("created_at", Utc, nullable=False),
    sa.Column("expires_at", Utc),
    sa.Column("last_used_at", Utc),
    sa.Column("revoked_at", Utc),
    sa.Column("revoked_by", sa.Text),
)

sessions = sa.Table(
    "sessions",
    metadata,
    sa.Column("secret_hash", sa.String(64), primary_key=True),
    sa.Column("name", sa.Text, nullable=False, index=True),
    sa.Column("principal", sa.JSON, nullable=False),
    sa.Column("began_at", Utc, nullable=False),
    sa.Column("seen_at", Utc, nullable=False),
)

sign_in_codes = sa.Table(
    "sign_in_codes",
    metadata,
    sa.Column("code_hash", sa.String(64), primary_key=True),
    sa.Column("principal", sa.JSON, nullable=False),
    sa.Column("expires_at", Utc, nullable=False),
)

receipts = sa.Table(
    "receipts",
    metadata,
    sa.Column("release_id", sa.ForeignKey(releases.c.id), primary_key=True),
    sa.Column("environment", sa.String(63), primary_key=True),
    sa.Column("app", sa.String(63), nullable=False),
    sa.Column("digest", sa.String(71), nullable=False, index=True),
    sa.Column("signed_at", Utc, nullable=False),
    sa.Column("envelope", sa.JSON, nullable=False),
)

audit_events = sa.Table(
    "audit_events",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("at", Utc, nullable=False),
    sa.Column("principal", sa.Text, nullable=False),
    sa.Column("action", sa.String(40), nullable=False),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("details", sa.JSON, nullable=False),
    sa.Column("previous", sa.String(64), nullable=False),
    sa.Column("hash", sa.String(64), nullable=False),
)
"""Rows are only added, see headway.ledger.audit."""

policies = sa.Table(
    "policies",
    metadata,
    sa.Column("app", sa.String(63), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("document", sa.JSON, nullable=False),
    sa.Column("set_at", Utc, nullable=False),
    sa.Column("set_by", sa.Text, nullable=False),
)

sign_ins = sa.Table(
    "sign_ins",
    metadata,
    sa.Column("secret_hash", sa.String(64), primary_key=True),
    sa.Column("nonce", sa.Text, nullable=False),
    sa.Column("verifier", sa.Text, nullable=False),
    sa.Column("page", sa.Text, nullable=False),
    sa.Column("expires_at", Utc, nullable=False),
)

identities = sa.Table(
    "identities",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("issuer", sa.Text, primary_key=True),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("since", Utc, nullable=False),
)
