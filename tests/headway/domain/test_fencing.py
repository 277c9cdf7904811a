"""Fencing tokens: which writer is still valid."""

from __future__ import annotations

import pytest

from headway.domain.errors import LockLost
from headway.domain.fencing import FencingTokens


def test_writer_is_valid_until_a_newer_token_is_claimed() -> None:
    old, new = FencingTokens(), FencingTokens()
    kept = old.claim("shop", 1, 0)
    old.check("shop", kept)
    kept = new.claim("shop", 2, kept)
    with pytest.raises(LockLost, match="shop: another writer took over with token 2"):
        old.check("shop", kept)
    new.check("shop", kept)


def test_older_token_cannot_claim() -> None:
    tokens = FencingTokens()
    with pytest.raises(LockLost, match="shop: token 1 is older than 2"):
        tokens.claim("shop", 1, 2)
    with pytest.raises(LockLost):
        tokens.check("shop", 2)


def test_a_claim_may_be_repeated() -> None:
    tokens = FencingTokens()
    assert tokens.claim("shop", 3, tokens.claim("shop", 3, 0)) == 3


def test_apps_do_not_share_tokens() -> None:
    tokens = FencingTokens()
    tokens.claim("shop", 5, 0)
    with pytest.raises(LockLost):
        tokens.check("blog", 1)


def test_writer_without_a_claim_may_write_an_unclaimed_app() -> None:
    FencingTokens().check("shop", 0)
