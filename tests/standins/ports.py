"""Ports for servers that tests start and that cannot choose one themselves."""

from __future__ import annotations

from contextlib import ExitStack

from headway.system import ports_in_use

__all__ = ["free_port"]

RESERVED = ExitStack()


def free_port() -> int:
    """A port of loopback that nothing else on this machine gets before this process ends.

    One that was only found free can be the port of another test's connection when the server listens on it.
    """
    return RESERVED.enter_context(ports_in_use.reserved())
