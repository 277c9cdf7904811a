"""Principals: authenticated people, tokens and services, and the roles that they have.

A name that somebody typed is never a principal: one comes from a sign-in, a token or the operating system.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import Field, model_validator

from headway.domain.base import Frozen

__all__ = ["Principal", "Role"]


class Role(StrEnum):
    """What a principal may do with an app, or with all apps. Each role may do what those before it may."""

    VIEWER = "viewer"
    DEVELOPER = "developer"
    APPROVER = "approver"
    ADMIN = "admin"

    @property
    def rank(self) -> int:
        return list(Role).index(self)


RESERVED = ("group:", "service:", "token:")  # how groups and other kinds of principals are written


class Principal(Frozen):
    """Who asks for something. `name` is unique within its `kind`. Raises ValueError for a user with another's name."""

    kind: Literal["user", "token", "service"]
    name: str = Field(min_length=1, description="login of a person, name of a token, or name of a service")
    groups: tuple[str, ...] = Field(default=(), description="groups that the identity provider or an admin put it in")

    def __str__(self) -> str:
        return self.name if self.kind == "user" else f"{self.kind}:{self.name}"

    @model_validator(mode="after")
    def _cannot_be_confused(self) -> Principal:
        if self.name != self.name.strip() or not self.name.isprintable():
            raise ValueError("a name has no line breaks, and no spaces around it")
        if self.kind == "user" and self.name.casefold().startswith(RESERVED):
            raise ValueError(f"the name of a user does not begin with {' or '.join(RESERVED)}")
        return self
