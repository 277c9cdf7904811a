"""Durable records in SQLite or PostgreSQL: releases, rollouts, approvals, locks, deliveries."""

from headway.ledger import records
from headway.ledger.ledger import Ledger
from headway.ledger.records import *  # noqa: F403  # the names in its __all__, listed once

__all__ = ["Ledger"]
__all__ += records.__all__
