"""Takes one commit through every environment to production, and backs off by itself when it must."""

from __future__ import annotations

from prefect import State, flow
from prefect.exceptions import Pause

from flows.rollout import deliver
from flows.verify import verify
from headway.ledger import ReleaseRecord
from tasks.approvals import approval, thaw, while_newest
from tasks.build import build
from tasks.checkout import checkout, read_settings
from tasks.preflight import preconditions
from tasks.readiness import readiness
from tasks.release_record import close_release, open_release, run_state

__all__ = ["release"]


@flow(name="release", flow_run_name="{repo} {ref}")
async def release(
    repo: str, ref: str = "main", to: str | None = None, yes: bool = False, by: str = ""
) -> ReleaseRecord | State[ReleaseRecord]:
    """Release a commit: check it, build it once, and take it through the environments.

    Args:
        repo: path or URL of the git repository
        ref: branch, tag or commit; what it names now is what is released
        to: the last environment to go to; all of them when left out
        yes: do not wait for approval; the record says so
        by: who asks for it
    """
    source = await checkout(repo, ref)
    settings = await read_settings(source)
    record = await open_release(source, settings, by)
    try:
        await preconditions(record, source, settings, settings.release_path(to))
        async with while_newest(record):
            await verify(record, source, settings)
        artifact = await build(record, source, settings)
        for environment in settings.release_path(to):
            spec = settings.launch_spec(environment, artifact, record.name)
            rules = settings.environment(environment)
            ready = await readiness(record, source, settings, spec)
            await approval(record, source, rules, spec, ready, skip=yes)
            await thaw(record, source, rules, spec)
            await deliver(record, source, rules, spec)
    except Pause:
        raise
    except BaseException as error:
        return run_state(await close_release(record, error), error)
    return await close_release(record)
