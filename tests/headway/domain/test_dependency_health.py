"""Common formats of detailed health responses."""

from __future__ import annotations

from typing import Any

import pytest

from headway.domain.dependency_health import read
from headway.domain.revision import Revision

REVISION = Revision(app="shop", sha="3f2a9c1" + "0" * 33, digest="sha256:" + "a" * 64, configuration="c")


@pytest.mark.parametrize(
    ("answer", "ailing"),
    [
        ({"status": "ok"}, []),
        ({"status": "degraded"}, ["the app"]),
        ({"status": "ok", "checks": {"database": {"status": "ok", "latency_ms": 3}}}, []),
        (
            {
                "status": "degraded",
                "checks": {
                    "database": {"status": "down", "latency_ms": 2000.5, "error": "no\nroute"},
                    "redis": {"status": "ok"},
                },
            },
            ["database (2000.5 ms): no route"],
        ),
        ({"status": "UP", "components": {"db": {"status": "UP"}, "disk": {"status": "DOWN"}}}, ["disk"]),
        ({"status": "fail", "checks": [{"name": "queue", "status": "fail"}]}, ["queue"]),
        ({"status": "ok", "checks": {"database": True, "cache": False}}, ["cache"]),
    ],
)
def test_degraded_dependency_is_named(answer: dict[str, Any], ailing: list[str]) -> None:
    assert [str(one) for one in read(answer).ailing] == ailing


@pytest.mark.parametrize("answer", [None, [], "ok", {}, {"status": 1}, {"status": "ok", "checks": [1]}])
def test_invalid_health_response_is_an_error(answer: object) -> None:
    with pytest.raises(ValueError, match="expected"):
        read(answer)


@pytest.mark.parametrize(
    ("version", "right"),
    [(REVISION.sha, True), (REVISION.id, True), ("3f2a9c1", True), (None, True), ("5.4.1", True), ("9" * 40, False)],
)
def test_response_of_the_released_version_is_recognized(version: str | None, right: bool) -> None:
    answer = {"status": "ok", **({"version": version} if version else {}), "uptime_seconds": 3}
    found = read(answer)
    assert (found.wrong_version(REVISION) == "") is right
    assert found.uptime == 3
