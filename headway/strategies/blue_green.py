"""The new one runs idle beside the old one, then one atomic switch."""

from __future__ import annotations

from headway.model import Pause, Plan, Step
from headway.strategies.situation import Situation

__all__ = ["blue_green"]


def blue_green(at: Situation, *, scale_down_delay: float) -> Plan:
    """The old one stays warm for `scale_down_delay` seconds after the switch: until then the way back is one switch."""
    warm: tuple[Step, ...] = (Pause(seconds=scale_down_delay),) if at.old and scale_down_delay else ()
    steps = (*at.up(at.instances), *at.switch(), *warm, *at.down(at.old))
    return Plan(strategy="blue_green", new=at.new, old=at.old, steps=steps)
