"""What git hosts send: verified over the raw bytes, then read into events that are the same for all of them.

One file a host. A new host is one more, named in `HOSTS`.
"""

from __future__ import annotations

from headway.events.bitbucket import Bitbucket
from headway.events.event import Event, Ignored, PullRequestEvent, PushEvent
from headway.events.generic import Generic
from headway.events.gitea import Gitea
from headway.events.github import GitHub
from headway.events.gitlab import GitLab
from headway.events.host import Host
from headway.events.repository import place

__all__ = ["HOSTS", "Event", "Host", "Ignored", "PullRequestEvent", "PushEvent", "place"]

HOSTS: dict[str, Host] = {host.name: host for host in (GitHub(), GitLab(), Gitea(), Bitbucket(), Generic())}
