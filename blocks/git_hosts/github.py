"""GitHub, or its Enterprise Server: as an app, or with a token."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import quote

import jwt
from prefect.blocks.core import Block
from pydantic import Field, PrivateAttr, SecretStr, model_validator

from headway.domain.errors import GitHostError
from headway.domain.git import CommitStatus, DeploymentStatus, PullRequest, StatusState
from headway.domain.ports import GitHost
from headway.scm.rest_client import Rest, reads

__all__ = ["GitHub"]

EARLY = 120.0  # seconds before its expiry that an installation token is renewed
LIFE = 3600.0  # lifetime of an installation token, in seconds
STATUS = {
    StatusState.PENDING: "pending",
    StatusState.RUNNING: "pending",
    StatusState.SUCCESS: "success",
    StatusState.FAILURE: "failure",
    StatusState.ENDED: "error",
}
DEPLOYMENT = {
    StatusState.PENDING: "pending",
    StatusState.RUNNING: "in_progress",
    StatusState.SUCCESS: "success",
    StatusState.FAILURE: "failure",
    StatusState.ENDED: "inactive",
}


class GitHub(Block, GitHost):
    """Client of GitHub, authenticated with a token or as an installed GitHub App.

    Either needs write access to commit statuses, deployments and pull requests.
    """

    _block_type_name = "Headway GitHub"
    _block_type_slug = "github"
    _description = "Commit statuses, deployments and pull requests at GitHub."

    api: str = Field(
        default="https://api.github.com",
        description="URL of the REST API; https://HOST/api/v3 for GitHub Enterprise Server",
    )
    token: SecretStr | None = Field(default=None, description="fine-grained or classic token. Omit it for a GitHub App")
    app_id: str | None = Field(default=None, description="id or client id of a GitHub App")
    private_key: SecretStr | None = Field(default=None, description="private key of the app, in PEM")
    installation_id: int | None = Field(default=None, description="id of the app's installation")

    _rest: Rest | None = PrivateAttr(default=None)
    _installation: tuple[str, float] | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _one_way_in(self) -> GitHub:
        if self.token is None and not (self.app_id and self.private_key and self.installation_id):
            raise ValueError("give a token, or app_id, private_key and installation_id of an app")
        return self

    def set_status(self, repo: str, status: CommitStatus) -> None:
        body = {
            "state": STATUS[status.state],
            "context": status.context,
            "description": status.description,
            "target_url": status.url,
        }
        self._ask().send("POST", f"/repos/{repo}/statuses/{status.sha}", body)

    def set_deployment(self, repo: str, deployment: DeploymentStatus) -> None:
        known = self._ask().get(
            f"/repos/{repo}/deployments", sha=deployment.sha, environment=deployment.environment, per_page=1
        )
        made = known[0] if known else self._make(repo, deployment)
        body = {
            "state": DEPLOYMENT[deployment.state],
            "description": deployment.description,
            "log_url": deployment.log_url,
            "auto_inactive": True,
        } | ({"environment_url": deployment.url} if deployment.url else {})
        self._ask().send("POST", f"/repos/{repo}/deployments/{made['id']}/statuses", body)
        if deployment.removed:
            self._remove_environment(repo, deployment.environment)

    def _remove_environment(self, repo: str, environment: str) -> None:
        """Remove all deployments of an environment, and the environment itself if the token may do that."""
        deployments = f"/repos/{repo}/deployments"
        for made in self._ask().pages(deployments, environment=environment, per_page=100):
            self._ask().send("POST", f"{deployments}/{made['id']}/statuses", {"state": "inactive"})
            self._ask().send("DELETE", f"{deployments}/{made['id']}")
        try:
            self._ask().send("DELETE", f"/repos/{repo}/environments/{quote(environment, safe='')}")
        except GitHostError as error:
            if not error.refused:  # it needs administration rights; without deployments the environment is not shown
                raise

    def _make(self, repo: str, deployment: DeploymentStatus) -> Any:
        body = {
            "ref": deployment.sha,
            "environment": deployment.environment,
            "auto_merge": False,
            "required_contexts": [],  # do not wait for checks: Headway's own are among them
            "description": "Headway",
            "transient_environment": deployment.transient,
            "production_environment": not deployment.transient and deployment.environment == "production",
        }
        return self._ask().send("POST", f"/repos/{repo}/deployments", body)

    def set_comment(self, repo: str, number: int, marker: str, text: str) -> None:
        body = {"body": f"{marker}\n{text}"}
        for comment in self._ask().pages(f"/repos/{repo}/issues/{number}/comments", per_page=100):
            if marker in (comment["body"] or ""):
                if comment["body"] != body["body"]:
                    self._ask().send("PATCH", f"/repos/{repo}/issues/comments/{comment['id']}", body)
                return
        self._ask().send("POST", f"/repos/{repo}/issues/{number}/comments", body)

    def pull_request(self, repo: str, number: int) -> PullRequest | None:
        found = self._ask().find(f"/repos/{repo}/pulls/{number}")
        return _pull(found) if found else None

    def open_pull_requests(self, repo: str) -> dict[int, PullRequest]:
        found = self._ask().pages(f"/repos/{repo}/pulls", state="open", per_page=100)
        return {pull.number: pull for pull in map(_pull, found)}

    def _ask(self) -> Rest:
        if self._rest is None:
            self._rest = Rest(self.api, self._headers)
        return self._rest

    def _headers(self) -> dict[str, str]:
        token = self.token.get_secret_value() if self.token else self._installation_token()
        return {
            "Authorization": f"Bearer {token}",
            "Accept": "application/vnd.github+json",
            "X-GitHub-Api-Version": "2022-11-28",
        }

    def _installation_token(self) -> str:
        """https://docs.github.com/en/apps/creating-github-apps/authenticating-with-a-github-app."""
        now = time.time()
        if self._installation and now < self._installation[1]:
            return self._installation[0]
        assert self.private_key
        try:
            signed = jwt.encode(
                {"iat": int(now) - 60, "exp": int(now) + 540, "iss": str(self.app_id)},
                self.private_key.get_secret_value(),
                algorithm="RS256",
            )
        except (ValueError, TypeError, jwt.PyJWTError) as error:
            raise GitHostError(
                "the private key of the GitHub App cannot be read", "paste the whole PEM file"
            ) from error
        rest = Rest(self.api, lambda: {"Authorization": f"Bearer {signed}", "Accept": "application/vnd.github+json"})
        answer = rest.send("POST", f"/app/installations/{self.installation_id}/access_tokens", {})
        self._installation = (answer["token"], now + LIFE - EARLY)
        return str(answer["token"])


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
