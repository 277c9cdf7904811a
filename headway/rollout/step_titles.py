"""Short titles of the steps of a plan, for Prefect's UI."""

from __future__ import annotations

from headway.domain.plan import Analyze, Gate, Pause, Plan, Rehearse, Route, Step, Verify

__all__ = ["titles"]


def titles(plan: Plan) -> list[tuple[int, str]]:
    """Position and title of every step, such as `canary 5%` and `analyse 5%`."""
    found: list[tuple[int, str]] = []
    share = 0
    for index, step in enumerate(plan.steps):
        if isinstance(step, Route):
            share = step.traffic.weights.get(plan.new, 0)
        found.append((index, _title(plan, step, share)))
    return found


def _title(plan: Plan, step: Step, share: int) -> str:
    match step:
        case Route() if step.traffic.preview:
            return "preview"
        case Route() if not step.traffic.weights:
            return "route nothing"
        case Route() if plan.strategy == "canary":
            return f"canary {share}%"
        case Route() if share < 100:
            return f"roll {share}%"
        case Route():
            return f"switch to {plan.new}"
        case Analyze():
            return "analyse preview" if step.preview else f"analyse {share}%"
        case Pause():
            return f"pause {step.seconds:g} s at {share}%"
        case Gate():
            return f"wait for a person at {share}%"
        case Verify():
            return "verify preview"
        case Rehearse():
            return "rehearse the rollback"
        case _:
            return str(step).split(", at most")[0].replace(":", "")
