"""Switch the traffic of the app's domain on Vercel: all to one deployment, or a rolling release between two."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from blocks.targets.vercel.client import Deployment, Vercel
from headway.domain.errors import TargetError, UsageError

__all__ = ["TrafficSwitch"]

SWITCH = 180.0  # seconds that Vercel has to move the domains, as in its own command line


@dataclass(frozen=True)
class TrafficSwitch:
    """Changes which deployments of the project serve the domain."""

    vercel: Vercel
    project: dict[str, Any]
    domain: str
    production: bool
    poll: float  # seconds between two reads of the project

    def to(self, to: Deployment) -> None:
        """Send all visitors to one deployment. Nothing is built; Vercel moves the domains at once."""
        if not self.production:
            if self.vercel.alias(self.domain) != to.id:
                self.vercel.assign(to.id, self.domain)
            return
        share = self.vercel.share(self.project)
        if share and share.canary == to.id:
            self.vercel.complete(self.project, to.id)
        elif share:  # rollback of a rolling release
            self.vercel.roll_back(self.project, share.base)
            self._await(
                lambda: self.vercel.share(self.project) is None,
                f"{self.vercel.where}: the rolling release does not end",
            )
        if self.vercel.alias(self.domain) != to.id:
            if to.promoted:  # it was in production before: instant rollback, even if promoting would be gradual
                self.vercel.roll_back(self.project, to.id)
            elif not self.project.get("rollingRelease") or self.vercel.alias(self.domain) is None:
                self.vercel.promote(self.project, to.id)
            elif not share:
                self.vercel.start(self.project, to.id)
                self.vercel.complete(self.project, to.id)
        self._await(
            lambda: self.vercel.moved(self.domain, to.id), f"{self.vercel.where}: {self.domain} is not at {to.id}"
        )

    def split(self, weights: dict[str, int]) -> None:
        """Split traffic with a rolling release. Its stages only go up, so a lower weight needs a new one."""
        share = self.vercel.share(self.project)
        base = share.base if share else self.vercel.alias(self.domain)
        if base not in weights:
            raise TargetError(
                f"{self.vercel.where}: {base or 'nothing'} serves {self.domain}", "route to a revision first"
            )
        canary = next(one for one in weights if one != base)
        stages = self.stages({weights[canary]}, "a split")
        if share and (share.canary != canary or share.percent > weights[canary]):
            self.vercel.roll_back(self.project, share.base)
            self._await(
                lambda: self.vercel.share(self.project) is None,
                f"{self.vercel.where}: the rolling release does not end",
            )
            share = None
        if share is None:
            self.vercel.start(self.project, canary)
        for stage in range((share.stage if share else 0) + 1, stages.index(weights[canary]) + 1):
            self.vercel.approve(self.project, canary, stage)
        self._await(
            lambda: (now := self.vercel.share(self.project)) is not None and now.percent == weights[canary],
            f"{self.vercel.where}: {canary} does not get to {weights[canary]} %",
        )

    def stages(self, wanted: set[int], strategy: str) -> list[int]:
        """Percentages of the project's stages. Raises UsageError if a wanted weight is not one of them."""
        stages = self.vercel.stages(self.project) if self.production else []
        percentages = [int(stage["targetPercentage"]) for stage in stages]
        if not stages:
            raise UsageError(
                f"{self.vercel.where}: {strategy} needs weighted routing, and rolling releases are off for"
                f" {'it' if self.production else 'previews'}",
                "turn them on in the project's settings (Pro and Enterprise), or choose one of: blue_green, recreate",
            )
        if not wanted <= set(percentages):
            raise UsageError(
                f"{self.vercel.where}: {strategy} wants {_listed(sorted(wanted))}; "
                f"the stages of its rolling releases are {_listed(percentages)}",
                "make the steps of headway.yaml and the stages of the project the same",
            )
        if alone := [stage["targetPercentage"] for stage in stages[:-1] if not stage.get("requireApproval")]:
            raise UsageError(
                f"{self.vercel.where}: its rolling releases go on by themselves after {_listed(alone)}",
                "have the stages wait for approval: Headway says when to go on",
            )
        return percentages

    def take_down(self, others: str | None) -> None:
        """Return the domain to the deployment that served before Headway, if it is still there."""
        live = self.vercel.alias(self.domain)
        if live is None or live == others:
            return
        before = self.vercel.deployment(others) if others else None
        if before is not None and before.state == "READY":
            self.to(before)
            return
        if share := self.vercel.share(self.project):
            self.vercel.roll_back(self.project, share.base)
        self.vercel.take_down(live)

    def _await(self, done: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + SWITCH
        while not done():
            if time.monotonic() >= end:
                raise TargetError(f"{what} after {SWITCH:g} s", "see the project in Vercel, then release or roll back")
            time.sleep(min(self.poll, 1.0))


def _listed(percentages: list[int]) -> str:
    return ", ".join(f"{one} %" for one in percentages)
