"""The step that runs smoke tests against the preview: verify."""

from __future__ import annotations

import asyncio

from headway.domain.errors import RolloutFailed
from headway.domain.plan import Verify
from headway.rollout import smoke_tests
from headway.rollout.context import Outcome, RolloutContext

__all__ = ["verify"]


async def verify(context: RolloutContext, _: int, step: Verify) -> Outcome:
    revision, spec = context.specs[step.revision]
    url = (await asyncio.to_thread(context.target.observe, context.app)).preview_url
    if url is None:
        raise RolloutFailed(f"{revision}: the target shows no preview", "was it routed to?")
    report = await smoke_tests.run(
        url,
        step.probes,
        revision,
        environment=spec.environment,
        on_line=context.on_line,
        secrets=[str(spec.env[name]) for name in spec.secrets],
        headers=context.target.request_headers,
    )
    return Outcome(detail=f"{report.probes} smoke tests passed on {url}")
