"""Git repositories, through the `git` program.

Every function blocks for a bounded time and raises SourceError, which never shows the credentials of a URL.
"""

from headway.scm.git.command import LOCAL_TIMEOUT, environment
from headway.scm.git.commits import (
    Commit,
    changed_paths,
    commits_between,
    file_of,
    fork_point,
    is_ancestor,
    message_of,
    tree_of,
    unknown,
)
from headway.scm.git.mirror import Tip, fetch_tip, mirror_of
from headway.scm.git.reachable import reached_from
from headway.scm.git.refs import LocalRepo, inspect, resolve
from headway.scm.git.workspace import checkout, describe, export_command, prune

__all__ = [
    "LOCAL_TIMEOUT",
    "Commit",
    "LocalRepo",
    "Tip",
    "changed_paths",
    "checkout",
    "commits_between",
    "describe",
    "environment",
    "export_command",
    "fetch_tip",
    "file_of",
    "fork_point",
    "inspect",
    "is_ancestor",
    "message_of",
    "mirror_of",
    "prune",
    "reached_from",
    "resolve",
    "tree_of",
    "unknown",
]
