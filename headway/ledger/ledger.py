"""The ledger: one repository per subject, all in one database."""

from __future__ import annotations

import sqlalchemy as sa

from headway.ledger.approvals import Approvals
from headway.ledger.apps import Apps
from headway.ledger.audit import Audit
from headway.ledger.base import Clock, utc_now
from headway.ledger.checks import Checks
from headway.ledger.commands import Commands
from headway.ledger.database import connect
from headway.ledger.deliveries import Deliveries
from headway.ledger.grants import Grants
from headway.ledger.heartbeats import Heartbeats
from headway.ledger.journal_retention import JournalRetention
from headway.ledger.locks import Locks
from headway.ledger.policies import Policies
from headway.ledger.prefect_requests import PrefectRequests
from headway.ledger.previews import Previews
from headway.ledger.queue import Queue
from headway.ledger.readings import Readings
from headway.ledger.receipts import Receipts
from headway.ledger.release_inputs import ReleaseInputs
from headway.ledger.releases import Releases
from headway.ledger.removal import Removal
from headway.ledger.reported_statuses import ReportedStatuses
from headway.ledger.revisions import Revisions
from headway.ledger.rollouts import Rollouts
from headway.ledger.schema_changes import SchemaChanges
from headway.ledger.sessions import Sessions
from headway.ledger.sign_ins import SignIns
from headway.ledger.stages import Stages
from headway.ledger.tokens import Tokens

__all__ = ["Ledger"]


class Ledger:
    """The durable record of releases, rollouts, approvals, locks and deliveries. Every write is one transaction."""

    def __init__(self, engine: sa.Engine, clock: Clock = utc_now) -> None:
        self._engine = engine
        self.audit = Audit(engine, clock)
        self.locks = Locks(engine, clock)
        self.releases = Releases(engine, clock)
        self.heartbeats = Heartbeats(engine, clock)
        self.inputs = ReleaseInputs(engine, clock)
        self.stages = Stages(engine, clock)
        self.receipts = Receipts(engine, clock)
        self.removal = Removal(engine, clock)
        self.checks = Checks(engine, clock)
        self.readings = Readings(engine, clock)
        self.journal = JournalRetention(engine, clock)
        self.apps = Apps(engine, clock)
        self.tokens = Tokens(engine, clock)
        self.grants = Grants(engine, clock, self.tokens)
        self.policies = Policies(engine, clock)
        self.previews = Previews(engine, clock)
        self.prefect_requests = PrefectRequests(engine, clock)
        self.deliveries = Deliveries(engine, clock)
        self.sessions = Sessions(engine, clock)
        self.sign_ins = SignIns(engine, clock)
        self.statuses = ReportedStatuses(engine, clock)
        self.queue = Queue(engine, clock, self.releases)
        self.rollouts = Rollouts(engine, clock, self.locks)
        self.approvals = Approvals(engine, clock, self.releases, self.rollouts)
        self.commands = Commands(engine, clock, self.rollouts)
        self.revisions = Revisions(engine, clock, self.releases, self.rollouts)
        self.schema_changes = SchemaChanges(engine, clock, self.locks, self.revisions)

    @classmethod
    def open(cls, url: str, clock: Clock = utc_now) -> Ledger:
        """Open `sqlite:///PATH` or `postgresql+psycopg://...`, and migrate it to the newest schema.

        Raises ServiceUnavailable.
        """
        return cls(connect(url), clock)

    def close(self) -> None:
        self._engine.dispose()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
