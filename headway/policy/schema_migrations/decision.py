"""When the migrations of a release run: before its rollout, after the rollback window, or never."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from headway.domain.errors import MigrationRefused
from headway.policy.schema_migrations.operation import Kind, Operation
from headway.policy.schema_migrations.operations import operations

__all__ = ["Decision", "decide"]

SHOWN = 5  # operations in a message


class Decision(NamedTuple):
    """What to do with the database, and the migration files."""

    kind: Kind | None
    """None: nothing."""
    files: tuple[str, ...] = ()
    why: str = ""

    def __str__(self) -> str:
        return ": ".join(filter(None, (self.kind or "nothing to do", ", ".join(self.files) or self.why)))


def decide(
    declared: Literal["detect", "expand", "contract"], new: Mapping[str, str], *, live: bool, pending: str = ""
) -> Decision:
    """What a release with these new migrations (path -> text) does in an environment.

    `live`: a version is live that the migrations may break. `pending` describes a contract migration that waits: the
    migrate command would run it too early. Raises MigrationRefused when the old and the new version cannot both work
    with the database.
    """
    files = tuple(new)
    if not live:
        return Decision("expand", files, "nothing is live here")
    if declared == "contract":
        return Decision("contract", files, "migrations/kind says so")
    kind: Kind = "expand" if declared == "expand" else _kind(new)
    if kind == "expand" and pending:
        if not new and declared == "detect":
            return Decision(None, (), f"{pending} is pending, and there are no new migrations")
        raise MigrationRefused(
            f"{pending} is pending, and migrating now would run it too early",
            "release this after it has run: headway status shows when. Commits without migrations can be released now",
        )
    return Decision(kind, files, "" if new else "no new migrations")


def _kind(new: Mapping[str, str]) -> Kind:
    found: dict[Kind, list[str]] = {"expand": [], "contract": []}
    for path, text in new.items():
        done = operations(path, text)
        if done is None:
            raise MigrationRefused(
                f"{path}: its effect on the live version cannot be determined",
                "write `headway: expand` or `headway: contract` in a comment of it, or set migrations/kind",
            )
        for one in done:
            found[one.kind].append(_operation_text(path, one))
    if found["expand"] and found["contract"]:
        takes, adds = ("\n    ".join(found[kind][:SHOWN]) for kind in ("contract", "expand"))
        raise MigrationRefused(
            f"the release removes and adds at once:\n  removes from the live version:\n    {takes}\n"
            f"  adds for the new version:\n    {adds}",
            "release the additions first, and the removals in a later release; if a file is misread, add the comment "
            "`headway: expand` to it",
        )
    return "contract" if found["contract"] else "expand"


def _operation_text(path: str, one: Operation) -> str:
    return f"{path}:{one.line}: {one.what}"
