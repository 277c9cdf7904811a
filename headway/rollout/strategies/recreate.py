"""Stop the old one, start the new one: for targets that can do no better, and apps that cannot run twice."""

from __future__ import annotations

from headway.domain.plan import Plan, Route, Step
from headway.domain.traffic import Traffic
from headway.rollout.strategies.context import Situation

__all__ = ["recreate"]


def recreate(at: Situation) -> Plan:
    """Nobody is served between the two; the proxy answers 503 meanwhile."""
    stop: tuple[Step, ...] = (Route(traffic=Traffic()), *at.down(at.old)) if at.old else at.down()
    return Plan(strategy="recreate", new=at.new, old=at.old, steps=(*stop, *at.up(at.instances), *at.switch()))
