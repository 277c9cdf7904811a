"""GitLab."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from prefect.blocks.core import Block
from pydantic import Field, PrivateAttr, SecretStr

from headway.domain.errors import GitHostError
from headway.domain.git import CommitStatus, PullRequest, StatusState
from headway.domain.ports import GitHost
from headway.scm.rest_client import Rest, below, reads

__all__ = ["GitLab"]

STATUS = {
    StatusState.PENDING: "pending",
    StatusState.RUNNING: "running",
    StatusState.SUCCESS: "success",
    StatusState.FAILURE: "failed",
    StatusState.ENDED: "canceled",
}


class GitLab(Block, GitHost):
    """Client of GitLab: commit statuses, comments and merge requests."""

    _block_type_name = "Headway GitLab"
    _block_type_slug = "gitlab"
    _description = "Commit statuses and merge requests at GitLab."

    api: str = Field(default="https://gitlab.com/api/v4", description="URL of the REST API")
    token: SecretStr = Field(description="project, group or personal token with the scope api")

    _rest: Rest | None = PrivateAttr(default=None)

    def set_status(self, repo: str, status: CommitStatus) -> None:
        body = {
            "state": STATUS[status.state],
            "name": status.context,
            "description": status.description,
            "target_url": status.url,
        }
        try:
            self._ask().send("POST", f"{self._project(repo)}/statuses/{status.sha}", body)
        except GitHostError as error:
            if "Cannot transition status" not in error.what:  # the status already has this state
                raise

    def set_comment(self, repo: str, number: int, marker: str, text: str) -> None:
        notes = f"{self._project(repo)}/merge_requests/{number}/notes"
        body = {"body": f"{marker}\n{text}"}
        for note in self._ask().pages(notes, per_page=100):
            if marker in note["body"]:
                if note["body"] != body["body"]:
                    self._ask().send("PUT", f"{notes}/{note['id']}", body)
                return
        self._ask().send("POST", notes, body)

    def pull_request(self, repo: str, number: int) -> PullRequest | None:
        found = self._ask().find(f"{self._project(repo)}/merge_requests/{number}")
        return _pull(found) if found else None

    def open_pull_requests(self, repo: str) -> dict[int, PullRequest]:
        found = self._ask().pages(f"{self._project(repo)}/merge_requests", state="opened", per_page=100)
        return {pull.number: pull for pull in map(_pull, found)}

    def _project(self, repo: str) -> str:
        return f"/projects/{quote(below(self.api, '/api/v4', repo), safe='')}"

    def _ask(self) -> Rest:
        if self._rest is None:
            self._rest = Rest(self.api, lambda: {"PRIVATE-TOKEN": self.token.get_secret_value()})
        return self._rest


@reads
def _pull(pull: Any) -> PullRequest:
    return PullRequest(
        number=pull["iid"],
        open=pull["state"] in ("opened", "locked"),  # locked: being merged, which may fail
        head=pull["sha"] or "",  # null when the branch was deleted
        fork=pull["source_project_id"] != pull["target_project_id"],
        base=pull["target_branch"],
        branch=pull["source_branch"],
    )
