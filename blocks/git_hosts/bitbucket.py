"""Bitbucket Cloud."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

from prefect.blocks.core import Block
from pydantic import Field, PrivateAttr, SecretStr

from headway.domain.errors import GitHostError
from headway.domain.git import CommitStatus, PullRequest, StatusState
from headway.domain.ports import GitHost
from headway.scm.rest_client import PAGES, Rest, reads

__all__ = ["Bitbucket"]

KEY = 40  # characters
OPEN = ("OPEN", "DRAFT")
STATUS = {
    StatusState.PENDING: "INPROGRESS",
    StatusState.RUNNING: "INPROGRESS",
    StatusState.SUCCESS: "SUCCESSFUL",
    StatusState.FAILURE: "FAILED",
    StatusState.ENDED: "STOPPED",
}


class Bitbucket(Block, GitHost):
    """Client of Bitbucket Cloud: commit statuses, comments and pull requests."""

    _block_type_name = "Headway Bitbucket"
    _block_type_slug = "bitbucket"
    _description = "Commit statuses and pull requests at Bitbucket Cloud."

    api: str = Field(default="https://api.bitbucket.org/2.0", description="URL of the REST API")
    token: SecretStr = Field(description="repository or workspace access token, for repositories and pull requests")

    _rest: Rest | None = PrivateAttr(default=None)

    def set_status(self, repo: str, status: CommitStatus) -> None:
        body = {
            "key": _key(status.context),
            "state": STATUS[status.state],
            "name": status.context,
            "description": status.description,
            "url": status.url,
        }
        self._ask().send("POST", f"/repositories/{repo}/commit/{status.sha}/statuses/build", body)

    def set_comment(self, repo: str, number: int, marker: str, text: str) -> None:
        comments = f"/repositories/{repo}/pullrequests/{number}/comments"
        words = f"{text}\n\n{marker}"
        for comment in self._pages(comments):
            if marker in comment["content"]["raw"] and not comment.get("deleted"):
                if comment["content"]["raw"] != words:
                    self._ask().send("PUT", f"{comments}/{comment['id']}", {"content": {"raw": words}})
                return
        self._ask().send("POST", comments, {"content": {"raw": words}})

    def pull_request(self, repo: str, number: int) -> PullRequest | None:
        found = self._ask().find(f"/repositories/{repo}/pullrequests/{number}")
        return _pull(found) if found else None

    def open_pull_requests(self, repo: str) -> dict[int, PullRequest]:
        pulls = f"/repositories/{repo}/pullrequests"
        found = [*self._pages(pulls, state="OPEN"), *self._drafts(pulls)]
        return {pull.number: pull for pull in map(_pull, found)}

    def _drafts(self, pulls: str) -> list[Any]:
        """Pull requests whose state is DRAFT; none where the API does not have this state, and drafts are OPEN."""
        try:
            return list(self._pages(pulls, state="DRAFT"))
        except GitHostError as error:
            if error.refused:
                return []
            raise

    def _pages(self, path: str, **query: str) -> Iterator[Any]:
        for number in range(1, PAGES + 1):
            page = self._ask().get(path, **query, page=number, pagelen=50)
            yield from _values(page)
            if "next" not in page:
                return

    def _ask(self) -> Rest:
        if self._rest is None:
            self._rest = Rest(self.api, lambda: {"Authorization": f"Bearer {self.token.get_secret_value()}"})
        return self._rest


def _key(context: str) -> str:
    return context if len(context) <= KEY else hashlib.sha256(context.encode()).hexdigest()[:KEY]


@reads
def _values(page: Any) -> Any:
    return page["values"]


@reads
def _pull(pull: Any) -> PullRequest:
    theirs = pull["source"]["repository"]
    return PullRequest(
        number=pull["id"],
        open=pull["state"] in OPEN,
        head=(pull["source"]["commit"] or {}).get("hash", ""),  # null when the branch was deleted
        fork=theirs is None or theirs["full_name"] != pull["destination"]["repository"]["full_name"],
        base=pull["destination"]["branch"]["name"],
        branch=pull["source"]["branch"]["name"],
    )
