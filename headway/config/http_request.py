"""A request of a smoke test, with the response that it expects."""

from __future__ import annotations

from pydantic import Field, JsonValue, StrictBool, StrictInt, model_validator

from headway.config.base import Section
from headway.config.value_types import Text, Timeout, UrlPath
from headway.domain import plan

__all__ = ["HttpRequest"]


class HttpRequest(Section):
    """A request and the expected response. It has exactly one method, with its path."""

    get: UrlPath | None = Field(default=None, description="path to GET")
    post: UrlPath | None = Field(default=None, description="path to POST to")
    put: UrlPath | None = Field(default=None, description="path to PUT to")
    patch: UrlPath | None = Field(default=None, description="path to PATCH")
    delete: UrlPath | None = Field(default=None, description="path to DELETE")
    head: UrlPath | None = Field(default=None, description="path to HEAD")
    headers: dict[str, Text] = Field(default={}, description="request headers")
    body: str | None = Field(default=None, description="request body as text")
    json_body: JsonValue = Field(default=None, alias="json", description="request body as JSON")
    expect: StrictInt = Field(default=200, ge=100, le=599, description="expected status")
    expect_json: dict[str, JsonValue] | None = Field(default=None, description="JSON that the response must contain")
    expect_text: str | None = Field(default=None, description="text that the response must contain")
    within: Timeout | None = Field(default=None, description="longest response time")
    version: StrictBool = Field(
        default=False, description="the response must come from the version that was just deployed"
    )
    deadline: Timeout = Field(
        default=30.0,
        description="time in which the request is repeated until it succeeds. A client "
        "error of the right version, such as 404, is not repeated",
    )

    @model_validator(mode="after")
    def _one_request(self) -> HttpRequest:
        if len(self._requests()) != 1:
            raise ValueError("needs exactly one of get, post, put, patch, delete, head")
        if self.body is not None and self.json_body is not None:
            raise ValueError("has both body and json: choose one")
        return self

    @property
    def method(self) -> str:
        """`GET`, `POST` ..."""
        return self._requests()[0][0]

    @property
    def path(self) -> str:
        return self._requests()[0][1]

    @property
    def data(self) -> plan.Probe:
        """As a plan keeps it."""
        names = plan.Probe.model_fields
        return plan.Probe.model_validate({name: getattr(self, name) for name in names})

    def _requests(self) -> list[tuple[str, str]]:
        paths = {
            "GET": self.get,
            "POST": self.post,
            "PUT": self.put,
            "PATCH": self.patch,
            "DELETE": self.delete,
            "HEAD": self.head,
        }
        return [(method, path) for method, path in paths.items() if path is not None]
