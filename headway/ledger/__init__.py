"""The ledger: what happened, who holds what, who said yes."""

from headway.ledger.ledger import Ledger
from headway.ledger.records import (
    ApprovalRecord,
    KnownCheck,
    Lock,
    LockRecord,
    ReleaseRecord,
    ReleaseState,
    RolloutKind,
    RolloutRecord,
    RolloutState,
    StageRecord,
    StageState,
    StepRecord,
    Users,
)

__all__ = [
    "ApprovalRecord",
    "KnownCheck",
    "Ledger",
    "Lock",
    "LockRecord",
    "ReleaseRecord",
    "ReleaseState",
    "RolloutKind",
    "RolloutRecord",
    "RolloutState",
    "StageRecord",
    "StageState",
    "StepRecord",
    "Users",
]
