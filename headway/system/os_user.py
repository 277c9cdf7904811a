"""The operating system's user as a principal."""

from __future__ import annotations

import grp
import os
import pwd

from headway.domain.errors import UsageError
from headway.domain.principal import Principal

__all__ = ["os_user"]


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


def _group(gid: int) -> str:
    """The name of a group; its number when it has none."""
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
