"""Results that a flow run finds again when it comes back from a suspension.

A run that waits for a person is suspended, and starts from the top when it goes on. Headway may have been upgraded
meanwhile. Prefect's own cache key contains the source of the task and the modules of its arguments: after an upgrade it
would find nothing, and the run would check out what the branch names by then.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import PurePath
from typing import Any

from prefect.cache_policies import CachePolicy
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId, TaskRunFilter, TaskRunFilterName
from prefect.client.schemas.objects import TaskRun
from prefect.client.schemas.sorting import TaskRunSort
from prefect.context import FlowRunContext, TaskRunContext
from prefect.results import ResultRecordMetadata  # type: ignore[attr-defined]  # where the documentation has it

__all__ = ["OncePerRun", "once_per_run"]


def once_per_run(*inputs: str) -> OncePerRun:
    """Cache policy: run the task once in a flow run for each value of these inputs.

    Args:
        inputs: arguments of the task, or attributes of them, that tell its calls apart, such as "ref" or "source.sha"
    """
    return OncePerRun(inputs=inputs)


@dataclass
class OncePerRun(CachePolicy):
    """The key is made of the flow run, the name of the task and some inputs: no source, no modules."""

    inputs: tuple[str, ...] = ()
    _called: dict[tuple[str, str], list[str]] = field(default_factory=dict, repr=False, compare=False)

    def compute_key(self, task_ctx: TaskRunContext, inputs: dict[str, Any], *_: Any, **__: Any) -> str | None:
        run = task_ctx.task_run.flow_run_id
        if run is None:
            return None
        named = [str(attrgetter(path)(_Namespace(inputs))) for path in self.inputs]
        key = hashlib.sha256("\0".join([str(run), task_ctx.task.name, *named]).encode()).hexdigest()[:32]
        if _was_suspended():
            return self._stored_by_last_release(task_ctx.task_run, key) or key
        return key

    def _stored_by_last_release(self, task_run: TaskRun, key: str) -> str | None:
        """Key of the result of the same call, where 0.1.0 stored it; goes away in 0.3.

        Its keys cannot be computed any more. A run makes its calls in the same order each time: the first call of a
        task takes the first key that Prefect knows of that task in this run.
        """
        called = self._called.setdefault((str(task_run.flow_run_id), task_run.name), [])
        if key not in called:
            called.append(key)
        stored = _stored_keys(task_run)
        position = called.index(key)
        return stored[position] if key not in stored and position < len(stored) else None


def _was_suspended() -> bool:
    """Whether this flow run has been suspended before. Prefect does not count that as another run."""
    context = FlowRunContext.get()
    policy = context.flow_run.empirical_policy if context and context.flow_run else None
    return bool(policy and policy.pause_keys)


class _Namespace:
    """The arguments of a task as attributes."""

    def __init__(self, arguments: dict[str, Any]) -> None:
        self.__dict__.update(arguments)


def _stored_keys(task_run: TaskRun) -> list[str]:
    """Keys of the results that tasks of this name have stored in this flow run, the oldest first."""
    assert task_run.flow_run_id is not None
    with get_client(sync_client=True) as client:
        known = client.read_task_runs(
            flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[task_run.flow_run_id])),
            task_run_filter=TaskRunFilter(name=TaskRunFilterName(any_=[task_run.name])),
            sort=TaskRunSort.EXPECTED_START_TIME_ASC,
        )
    stored = [one.state.data for one in known if one.state]
    places = [data.storage_key for data in stored if isinstance(data, ResultRecordMetadata)]
    return list(dict.fromkeys(PurePath(place).name for place in places if place))
