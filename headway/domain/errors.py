"""Errors. Each has a location, a message and a hint.

    HeadwayError                       exit 1
    ├── UsageError                     exit 2   an impossible request: nothing was started
    │   ├── SettingsError                       headway.yaml (all errors at once)
    │   ├── SourceError                         repository, ref, work tree
    │   ├── NotFound                            app, environment, revision, release or block
    │   └── ServiceUnavailable                  no Prefect server, or a port that is taken
    ├── ReleaseFailed                  exit 1   a stage of a release did not succeed
    │   ├── CheckFailed
    │   ├── BuildFailed
    │   ├── RolloutFailed                       not ready, a failed analysis, a deadline
    │   │   └── Aborted                         a person aborted it
    │   ├── SmokeFailed
    │   ├── MigrationFailed                     a migration command failed or ran out of time
    │   ├── MigrationRefused                    it would break the live revision, or a rollback
    │   ├── Rejected                            a person rejected it: earlier environments stay as they are
    │   └── Expired                             no decision in time: likewise
    ├── TargetError                    exit 1   the platform refused or did not answer
    │   └── TargetUnavailable                   it does not answer at the moment
    ├── RegistryError                  exit 1   an image registry refused or did not answer
    ├── MetricsUnavailable             exit 1   a metric source did not answer with one value
    ├── GitHostError                   exit 1   a git host refused or did not answer
    ├── CommandFailed                  exit 1   a command of the app failed or ran out of time
    ├── EnvironmentLocked              exit 1   another run is changing this environment
    ├── LockLost                       exit 1   the lease expired and another writer took over
    └── Superseded                     exit 1   a newer release replaced this one
    NeedsPerson                        exit 3   not an error: a decision is needed

`NeedsPerson` is a `HeadwayError` too, so that one `except` at the edge prints them all.
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "Aborted",
    "BuildFailed",
    "CheckFailed",
    "CommandFailed",
    "EnvironmentLocked",
    "Expired",
    "GitHostError",
    "HeadwayError",
    "LockLost",
    "MetricsUnavailable",
    "MigrationFailed",
    "MigrationRefused",
    "NeedsPerson",
    "NotFound",
    "RegistryError",
    "Rejected",
    "ReleaseFailed",
    "RolloutFailed",
    "ServiceUnavailable",
    "SettingsError",
    "SmokeFailed",
    "SourceError",
    "Superseded",
    "TargetError",
    "TargetUnavailable",
    "UsageError",
]


class HeadwayError(Exception):
    """An error for people: `what` went wrong, and a `hint` on what to do.

    Both are plain sentences without secrets; `what` begins with where (a path into headway.yaml, an
    environment, a file), the way compilers say it.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.what}\n  hint: {self.hint}" if self.hint else self.what

    def __reduce__(self) -> tuple[type[HeadwayError], tuple[str, str]]:
        # Prefect pickles the exception of a failed run; without this the hint would be lost.
        return type(self), (self.what, self.hint)


class UsageError(HeadwayError):
    exit_code = 2


class SettingsError(UsageError):
    pass


class SourceError(UsageError):
    pass


class NotFound(UsageError):
    pass


class ServiceUnavailable(UsageError):
    pass


class ReleaseFailed(HeadwayError):
    pass


class CheckFailed(ReleaseFailed):
    pass


class BuildFailed(ReleaseFailed):
    pass


class RolloutFailed(ReleaseFailed):
    pass


class Aborted(RolloutFailed):
    pass


class SmokeFailed(ReleaseFailed):
    pass


class MigrationFailed(ReleaseFailed):
    pass


class MigrationRefused(ReleaseFailed):
    pass


class Rejected(ReleaseFailed):
    pass


class Expired(ReleaseFailed):
    pass


class TargetError(HeadwayError):
    pass


class TargetUnavailable(TargetError):
    """The platform does not answer at the moment: the same call may succeed later."""


class RegistryError(HeadwayError):
    pass


class MetricsUnavailable(HeadwayError):
    pass


class GitHostError(HeadwayError):
    """`after`: seconds after which to retry, if the host sent them. `refused`: the host works and refused."""

    def __init__(self, what: str, hint: str = "", after: float | None = None, *, refused: bool = False) -> None:
        super().__init__(what, hint)
        self.after = after
        self.refused = refused

    def __reduce__(  # type: ignore[override]  # with more than others have
        self,
    ) -> tuple[type[GitHostError], tuple[str, str, float | None], dict[str, bool]]:
        return type(self), (self.what, self.hint, self.after), {"refused": self.refused}


class CommandFailed(HeadwayError):
    pass


class EnvironmentLocked(HeadwayError):
    pass


class LockLost(HeadwayError):
    pass


class Superseded(HeadwayError):
    pass


class NeedsPerson(HeadwayError):
    exit_code = 3
