"""The operating system's user as a principal."""

from __future__ import annotations

import grp
import os
import pwd
from pathlib import Path

from headway.domain.errors import UsageError
from headway.domain.principal import Principal

__all__ = ["home_owner", "is_os_user", "os_user"]


def os_user() -> Principal:
    """The user who runs this process, with the groups of the operating system.

    Asks the system for the process's user id: $USER, $LOGNAME and git's configuration are for anybody to set. Raises
    UsageError when the id has no user.
    """
    uid = os.getuid()
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        raise UsageError(f"the user id {uid} has no name here", "add the user to the system's directory") from None
    groups = {_group(gid) for gid in (os.getgid(), *os.getgroups())}
    return Principal(kind="user", name=name, groups=tuple(sorted(groups)))


def home_owner(home: Path) -> str:
    """The user who owns Headway's home directory: always an admin. Its number when it has no name here."""
    uid = home.stat().st_uid
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def is_os_user(name: str) -> bool:
    """Whether the operating system has a user of this name."""
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def _group(gid: int) -> str:
    """The name of a group; its number when it has none."""
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
