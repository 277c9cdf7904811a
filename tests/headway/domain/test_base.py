"""A frozen noun is loaded from the pickle of an older version."""

from __future__ import annotations

import pickle

from pydantic import Field

from headway.domain.base import Frozen


class Noun(Frozen):
    name: str
    added: int = 3
    listed: list[str] = Field(default_factory=list)


def test_a_field_that_the_pickled_version_did_not_have_gets_its_default() -> None:
    old = Noun(name="shop")
    del old.__dict__["added"], old.__dict__["listed"]
    assert pickle.loads(pickle.dumps(old)) == Noun(name="shop")


def test_a_field_of_the_pickle_is_kept() -> None:
    assert pickle.loads(pickle.dumps(Noun(name="shop", added=7, listed=["a"]))) == Noun(
        name="shop", added=7, listed=["a"]
    )
