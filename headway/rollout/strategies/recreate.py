"""Recreate: stop the old revision, then start the new one. For apps that cannot run twice, and any target."""

from __future__ import annotations

from headway.domain.plan import Plan, Route, Step
from headway.domain.traffic import Traffic
from headway.rollout.strategies.context import Situation

__all__ = ["recreate"]


def recreate(at: Situation) -> Plan:
    """Plan with downtime: the proxy answers 503 between the two."""
    stop: tuple[Step, ...] = (Route(traffic=Traffic()), *at.down(at.old)) if at.old else at.down()
    return Plan(strategy="recreate", new=at.new, old=at.old, steps=(*stop, *at.up(at.instances), *at.switch()))
