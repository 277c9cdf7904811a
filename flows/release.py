"""Release: one commit through every environment to production, with a rollback when an environment fails."""

from __future__ import annotations

from prefect import State, flow
from prefect.exceptions import Pause

from flows.rollout import deliver
from flows.verify import verify
from headway.ledger import ReleaseRecord
from tasks.app_policy import apply_policy, require_allowed_source
from tasks.approvals import wait_for_approval, wait_for_thaw
from tasks.build import build
from tasks.checkout import checkout, read_settings
from tasks.preflight import preconditions
from tasks.readiness import readiness
from tasks.receipts import sign_last_receipt
from tasks.release_record import (
    ReleaseSession,
    close_release,
    launch_specs,
    open_ledger,
    open_release,
    run_state,
)
from tasks.run_names import release_run_name
from tasks.supersede import while_newest
from tasks.workloads import require_runner

__all__ = ["release"]


@flow(name="release", flow_run_name=release_run_name)
async def release(
    repo: str, ref: str = "main", to: str | None = None, yes: bool = False, by: str = ""
) -> ReleaseRecord | State[ReleaseRecord]:
    """Release a commit: check it, build it once, and roll it out to one environment after the other.

    Args:
        repo: path or URL of the git repository
        ref: branch, tag or commit; the commit that it names now is released
        to: the last environment; all of them by default
        yes: approve it as whoever starts the run, as far as they may; this is recorded
        by: ignored when a person starts the run; services of Headway name what they start it for
    """
    with open_ledger() as ledger:
        source = await checkout(repo, ref, ledger)
        settings = await read_settings(source, ledger)
        await require_allowed_source(ledger, repo, source, settings.app)
        run = ReleaseSession(ledger, await open_release(ledger, source, settings, by))
        try:
            require_runner(trusted=source.trusted)
            settings = await apply_policy(run, settings, settings.release_path(to))
            await preconditions(run, source, settings, settings.release_path(to))
            async with while_newest(run):
                await verify(run, source, settings)
            artifact = await build(run, source, settings)
            for spec in launch_specs(run, settings, artifact, settings.release_path(to)):
                rules = settings.environment(spec.environment)
                ready = await readiness(run, source, settings, spec)
                delivered = False
                while not delivered:
                    await wait_for_approval(run, source, rules, spec, ready, skip=yes)
                    await wait_for_thaw(run, source, rules, spec)
                    delivered = await deliver(run, source, rules, spec)
        except Pause:
            raise
        except BaseException as error:
            return run_state(await close_release(run, error), error)
        await sign_last_receipt(run)
        return await close_release(run)
