"""Gitea and Forgejo."""

from __future__ import annotations

from typing import Any

from prefect.blocks.core import Block
from pydantic import Field, PrivateAttr, SecretStr

from headway.domain.git import CommitStatus, PullRequest, StatusState
from headway.domain.ports import GitHost
from headway.scm.rest_client import Rest, below, reads

__all__ = ["Gitea"]

STATUS = {
    StatusState.PENDING: "pending",
    StatusState.RUNNING: "pending",
    StatusState.SUCCESS: "success",
    StatusState.FAILURE: "failure",
    StatusState.ENDED: "error",
}


class Gitea(Block, GitHost):
    """Client of Gitea or Forgejo: commit statuses, comments and pull requests."""

    _block_type_name = "Headway Gitea"
    _block_type_slug = "gitea"
    _description = "Commit statuses and pull requests at Gitea or Forgejo."

    api: str = Field(description="URL of the REST API, such as https://git.example.com/api/v1")
    token: SecretStr = Field(description="token that may read repositories, and write statuses and issues")

    _rest: Rest | None = PrivateAttr(default=None)

    def set_status(self, repo: str, status: CommitStatus) -> None:
        body = {
            "state": STATUS[status.state],
            "context": status.context,
            "description": status.description,
            "target_url": status.url,
        }
        self._ask().send("POST", f"/repos/{self._path(repo)}/statuses/{status.sha}", body)

    def set_comment(self, repo: str, number: int, marker: str, text: str) -> None:
        body = {"body": f"{marker}\n{text}"}
        for comment in self._ask().get(f"/repos/{self._path(repo)}/issues/{number}/comments"):
            if marker in comment["body"]:
                if comment["body"] != body["body"]:
                    self._ask().send("PATCH", f"/repos/{self._path(repo)}/issues/comments/{comment['id']}", body)
                return
        self._ask().send("POST", f"/repos/{self._path(repo)}/issues/{number}/comments", body)

    def pull_request(self, repo: str, number: int) -> PullRequest | None:
        found = self._ask().find(f"/repos/{self._path(repo)}/pulls/{number}")
        return _pull(found) if found else None

    def open_pull_requests(self, repo: str) -> dict[int, PullRequest]:
        found = self._ask().pages(f"/repos/{self._path(repo)}/pulls", state="open", limit=50)
        return {pull.number: pull for pull in map(_pull, found)}

    def _path(self, repo: str) -> str:
        return below(self.api, "/api/v1", repo)

    def _ask(self) -> Rest:
        if self._rest is None:
            self._rest = Rest(self.api, lambda: {"Authorization": f"token {self.token.get_secret_value()}"})
        return self._rest


@reads
def _pull(pull: Any) -> PullRequest:
    theirs = pull["head"]["repo"]
    return PullRequest(
        number=pull["number"],
        open=pull["state"] == "open",
        head=pull["head"]["sha"],
        fork=theirs is None or theirs["full_name"] != pull["base"]["repo"]["full_name"],
        base=pull["base"]["ref"],
        branch=pull["head"]["ref"],
    )
