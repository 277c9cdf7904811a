"""From which branches and tags a commit can be reached."""

from __future__ import annotations

from pathlib import Path

import pytest

from headway.domain.errors import SourceError
from headway.scm import git
from tests.standins.repositories import Repository


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """Two commits on main, one more on `side` and one that only a pull request has, whose name ends with a branch's."""
    made = Repository(tmp_path / "shop")
    made.commit("one")
    made.commit("two")
    return made


def reached(repository: Repository, sha: str, *allowed: str) -> str | None:
    """As a stranger sees it: through git's transport."""
    workspaces = repository.path.parent / "workspaces"
    origin = f"file://{repository.path}"
    git.checkout(origin, sha, workspaces)
    return git.reached_from(origin, sha, workspaces, lambda ref: not allowed or ref in allowed)


def test_a_commit_of_a_branch_is_reached_from_it(repository: Repository) -> None:
    newest, older = repository.git("rev-list", "main").splitlines()
    assert reached(repository, newest, "refs/heads/main") == "refs/heads/main"
    assert reached(repository, older, "refs/heads/main") == "refs/heads/main"
    assert reached(repository, older) is not None
    assert reached(repository, older, "refs/heads/other") is None


@pytest.mark.parametrize("ref", ["refs/pull/7/head", "refs/evil/refs/heads/main", "refs/notes/commits"])
def test_a_commit_of_another_ref_is_not_reached(repository: Repository, ref: str) -> None:
    repository.git("checkout", "-q", "--detach")
    unmerged = repository.commit("unmerged")
    repository.git("update-ref", ref, unmerged)
    repository.git("checkout", "-q", "main")
    assert reached(repository, unmerged) is None
    repository.git("merge", "-q", "--ff-only", unmerged)
    assert reached(repository, unmerged) is not None


def test_a_tag_counts_with_the_commit_that_it_is_of(repository: Repository) -> None:
    repository.git("checkout", "-q", "--detach")
    tagged = repository.commit("tagged")
    after = repository.commit("after")
    repository.git("tag", "-a", "v1", "-m", "one", after)
    repository.git("tag", "of-a-tree", "HEAD^{tree}")
    repository.git("checkout", "-q", "main")
    assert reached(repository, after, "refs/tags/v1") == "refs/tags/v1"
    assert reached(repository, tagged, "refs/tags/v1") == "refs/tags/v1"
    assert reached(repository, tagged, "refs/heads/main") is None
    assert reached(repository, tagged) == "refs/tags/v1"


def test_a_branch_that_is_gone_does_not_count(repository: Repository) -> None:
    repository.git("checkout", "-q", "-b", "topic")
    topic, _ = repository.commit("topic"), repository.commit("more")
    repository.git("checkout", "-q", "main")
    assert reached(repository, topic) == "refs/heads/topic"
    repository.git("branch", "-q", "-D", "topic")
    repository.git("branch", "topic/one")  # where the branch was a file
    assert reached(repository, topic) is None


def test_a_checked_out_commit_is_reached_from_head(repository: Repository, tmp_path: Path) -> None:
    repository.git("checkout", "-q", "--detach")
    detached = repository.commit("detached")
    assert git.reached_from(str(repository.path), detached, tmp_path / "w", lambda _: True) == "HEAD"


def test_a_repository_that_is_away_is_an_error(repository: Repository, tmp_path: Path) -> None:
    head = repository.git("rev-parse", "HEAD")
    with pytest.raises(SourceError):
        git.reached_from(f"file://{tmp_path}/away", head, tmp_path / "w", lambda _: True)
