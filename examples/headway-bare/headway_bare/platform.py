"""The `bare` platform. Headway reads it with every headway.yaml, so it imports nothing that is slow."""

from headway.domain.platform import Platform

__all__ = ["PLATFORM"]

PLATFORM = Platform(
    kind="bare",
    target="headway_bare.target:BareTarget",
    artifacts=frozenset({"bundle"}),
    default_targets=True,
)
