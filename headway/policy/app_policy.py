"""What the policy of an app allows, and the rules of an environment under it. Pure: the caller reads ledger and git.

headway.yaml can only tighten. Where it asks for less, the release goes on under the stricter rule and says so.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Literal

from pydantic import BaseModel

from headway.config import FILE_NAME, Approval, Environment, Settings
from headway.config.app_policy import AppPolicy, EnvironmentPolicy
from headway.domain.access import GROUP
from headway.domain.base import Frozen
from headway.domain.refusal import Refusal
from headway.domain.revision import SecretRef
from headway.scm.repository_url import place

__all__ = [
    "Floor",
    "RegisteredName",
    "allowed_ref",
    "effective",
    "floors_of",
    "repository_refusal",
    "secret_refusal",
    "stricter",
    "target_refusal",
]

HINT = "an admin can allow it: headway app policy {app}"
ITSELF = "headway"  # secrets of Headway itself begin with it


class Floor(Frozen):
    """The least that an environment asks for, and where that comes from."""

    source: str
    approval: Approval | None = None
    freeze: tuple[str, ...] = ()
    freeze_override: tuple[str, ...] = ()
    readiness: tuple[str, ...] = ()
    require: Literal["receipt"] | None = None

    @classmethod
    def of(cls, source: str, rules: Environment | EnvironmentPolicy) -> Floor:
        """The rules of an environment in headway.yaml, or in a policy."""
        return cls(
            source=source,
            approval=rules.approval,
            freeze=rules.freeze,
            freeze_override=rules.freeze_override or (rules.approval.by if rules.approval else ()),
            readiness=rules.readiness,
            require=rules.require,
        )


class RegisteredName(Frozen):
    """A registered app, and the secret that signs its webhooks."""

    app: str
    secret: str


# --- rules of an environment -------------------------------------------------------------------------------------


def floors_of(app: str, environment: str, target: str, policy: AppPolicy, live: Sequence[str]) -> list[Floor]:
    """What the policy asks for an environment: its own rules, and those of each that the target belongs to.

    `live` are environments of the app whose live revision is on this target: another name takes no rule away.
    """
    owners = {
        name
        for name, rules in policy.environments.items()
        if name in (environment, *live) or any(fnmatchcase(target, pattern) for pattern in rules.targets)
    }
    return [Floor.of(f"the policy of {app} for {name}", policy.environments[name]) for name in sorted(owners)]


def effective(name: str, own: Environment, floors: Iterable[Floor]) -> tuple[Environment, list[str]]:
    """The rules of an environment, and a line for each that is stricter than headway.yaml says.

    The result asks for at least what the last of the floors asks for, and for what those before it ask, as far as the
    later ones can be met.
    """
    rules = own
    sources: dict[str, list[str]] = {}
    for floor in floors:
        approval = stricter(floor.approval, rules.approval) if floor.approval else rules.approval
        wanted = {
            "approval": approval,
            "freeze": _both(rules.freeze, floor.freeze),
            "freeze_override": _narrowed(floor.freeze_override, rules.freeze_override),
            "readiness": _both(rules.readiness, floor.readiness),
            "require": floor.require or rules.require,
        }
        for key in (key for key, value in wanted.items() if value != getattr(rules, key)):
            sources.setdefault(key, []).append(floor.source)
        rules = rules.model_copy(update=wanted)
    stricter_than = {key: said for key, said in sources.items() if getattr(rules, key) != getattr(own, key)}
    return rules, [
        f"{name}/{key}: {FILE_NAME} asks for less than {' and '.join(said)}, which is used"
        for key, said in stricter_than.items()
    ]


def stricter(floor: Approval, own: Approval | None) -> Approval:
    """An approval that is at least `floor`, and as much of `own` as can be had with it."""
    if own is None:
        return floor
    by, count = _narrowed(floor.by, own.by), max(floor.count, own.count)
    if not _enough(by, count):
        by = floor.by
    return Approval(
        by=by,
        count=count if _enough(by, count) else floor.count,
        expires=min(floor.expires, own.expires),
        not_author=floor.not_author or own.not_author,
    )


def _enough(by: Sequence[str], count: int) -> bool:
    return not by or any(one.startswith(GROUP) for one in by) or len(set(by)) >= count


def _narrowed(floor: tuple[str, ...], own: tuple[str, ...]) -> tuple[str, ...]:
    """People of both lists; empty means everybody. Those of `floor` when the lists have nobody in common."""
    if not floor or not own:
        return floor or own
    return tuple(one for one in own if one in floor) or floor


def _both(own: tuple[str, ...], floor: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*own, *floor)))


# --- what a commit may use ---------------------------------------------------------------------------------------


def repository_refusal(app: str, repo: str, allowed: str | None) -> Refusal | None:
    """Why an app is not released from this repository; `allowed` None: it has no other."""
    if allowed is None or place(repo) == place(allowed):
        return None
    return Refusal(
        f"{repo}: its {FILE_NAME} is of the app {app}, which is released from {allowed}",
        f"rename the app, or move it here: headway app add {repo} --name {app}",
    )


def allowed_ref(policy: AppPolicy | None) -> Callable[[str], bool]:
    """Whether commits in the history of a ref (`refs/heads/main`, `HEAD`) may be released.

    Without a policy those of any branch, any tag, and the checked-out commit of a work tree.
    """

    def allowed(ref: str) -> bool:
        if policy is None:
            return True
        kind, _, name = ref.removeprefix("refs/").partition("/")
        patterns = {"heads": policy.branches, "tags": policy.tags}.get(kind, ())
        return any(fnmatchcase(name, pattern) for pattern in patterns)

    return allowed


def target_refusal(
    settings: Settings, environments: Iterable[str], policy: AppPolicy | None, app: str
) -> Refusal | None:
    """Why an environment of headway.yaml may not use its target."""
    for name in environments if policy else ():
        target = settings.environment(name).target
        own = policy.environments.get(name) if policy else None
        for patterns in (policy.targets if policy else (), own.targets if own else ()):
            if patterns and not any(fnmatchcase(target, pattern) for pattern in patterns):
                return Refusal(
                    f"environments/{name}/target: the policy of {app} does not allow {target}",
                    f"allowed: {', '.join(patterns)}; {HINT.format(app=app)}",
                )
    return None


def secret_refusal(
    settings: Settings, app: str, policy: AppPolicy | None, registered: Collection[RegisteredName]
) -> Refusal | None:
    """Why headway.yaml may not name one of its secrets: it is another app's or Headway's own, or not in the policy."""
    names = {ref.secret for ref in _secrets(settings)}
    for environment in settings.environments:
        names |= {ref.secret for ref in settings.variables(environment).values() if isinstance(ref, SecretRef)}
    for name in sorted(names):
        if why := _why_not(name, app, policy, registered):
            return Refusal(f"!secret {name}: {why}", HINT.format(app=app))
    return None


def _why_not(name: str, app: str, policy: AppPolicy | None, registered: Collection[RegisteredName]) -> str | None:
    words = _words(name)
    if (words.startswith(f"{ITSELF}-") and app != ITSELF) or words in {_words(one.secret) for one in registered}:
        return "it is a secret of Headway itself"
    if policy and policy.secrets is not None:
        allowed = any(fnmatchcase(name, pattern) for pattern in policy.secrets)
        return None if allowed else f"the policy of {app} allows {', '.join(policy.secrets) or 'none'}"
    owners = [one for one in {app, *(one.app for one in registered)} if f"{words}-".startswith(f"{one}-")]
    owner = max(owners, key=len, default=app)
    return None if owner == app else f"it is a secret of the app {owner}, by its name"


def _words(secret: str) -> str:
    """One spelling for all names that a secret store takes for the same: `Shop-prod/url`, `./shop.prod-url`."""
    return re.sub("[^a-z0-9]", "-", secret.lower()).strip("-")


def _secrets(value: object) -> Iterator[SecretRef]:
    """Every secret that is named anywhere below a part of the settings."""
    if isinstance(value, SecretRef):
        yield value
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _secrets(getattr(value, name))
    elif isinstance(value, dict):
        for each in value.values():
            yield from _secrets(each)
    elif isinstance(value, tuple | list):
        for each in value:
            yield from _secrets(each)
