"""Brings an environment back: a rollout of an older revision, through the same steps, on the fast path."""

from __future__ import annotations

from prefect import flow

from tasks.approvals import hold
from tasks.rollout_steps import finish_rollback, plan_rollback, show_what_runs, take_step
from tasks.schema_migrations import revert_schema

__all__ = ["rollback"]


@flow(name="rollback", flow_run_name="{app} {environment}")
async def rollback(
    app: str,
    environment: str,
    to: str | None = None,
    reason: str = "",
    by: str = "",
    only_unfinished: bool = False,
    force: bool = False,
    revert: bool = False,
) -> None:
    """Roll back one environment of an app.

    Args:
        app: name of the app, as in its headway.yaml
        environment: staging, production, ...
        to: revision or commit to go back to; the one before the present one when left out
        reason: kept in the record
        by: who asks for it
        only_unfinished: do nothing when no rollout was left half-way
        force: go back although a contract has taken away what that version may need; the reason says why
        revert: take such contracts back first, with the command that the repository declares for it
    """
    async with hold(
        app, environment, holder=f"rollback by {by or 'headway'}", revision=to or "the one before", release=None
    ):
        prepared = await plan_rollback(
            app, environment, to, reason, only_unfinished=only_unfinished, force=force, revert=revert, by=by
        )
        if prepared is None:
            return
        for change in prepared.in_the_way:
            await revert_schema(app, environment, change)
        for index, title in prepared.steps:
            await take_step(prepared, index, title)
        await show_what_runs(prepared)
        await finish_rollback(prepared)
