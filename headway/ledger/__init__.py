"""The ledger: what happened, who holds what, who said yes."""

from headway.ledger.ledger import Ledger
from headway.ledger.records import (
    AppRecord,
    ApprovalRecord,
    Delivery,
    DeliveryRecord,
    DeliveryState,
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
    "AppRecord",
    "ApprovalRecord",
    "Delivery",
    "DeliveryRecord",
    "DeliveryState",
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
