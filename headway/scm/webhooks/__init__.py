"""Webhook deliveries of git hosts: verify them over their raw bytes and read them into events, one file a host.

To add a host, add a file and name its class in `HOSTS`.
"""

from __future__ import annotations

from headway.domain.events import Event, Ignored, MergeGroupEvent, PullRequestEvent, PushEvent
from headway.scm.repository_url import place
from headway.scm.webhooks.base import Host
from headway.scm.webhooks.bitbucket import Bitbucket
from headway.scm.webhooks.generic import Generic
from headway.scm.webhooks.gitea import Gitea
from headway.scm.webhooks.github import GitHub
from headway.scm.webhooks.gitlab import GitLab

__all__ = ["HOSTS", "Event", "Host", "Ignored", "MergeGroupEvent", "PullRequestEvent", "PushEvent", "place"]

HOSTS: dict[str, Host] = {host.name: host for host in (GitHub(), GitLab(), Gitea(), Bitbucket(), Generic())}
