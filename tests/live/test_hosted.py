"""The real hosted platforms. Nothing here runs without a token.

Vercel: HEADWAY_TEST_VERCEL_TOKEN, and a project to spoil in HEADWAY_TEST_VERCEL_PROJECT, an alias such as
`something-of-mine.vercel.app` in HEADWAY_TEST_VERCEL_ALIAS, the team in HEADWAY_TEST_VERCEL_TEAM if it is of one.
Railway: HEADWAY_TEST_RAILWAY_TOKEN, a project token, and the service in HEADWAY_TEST_RAILWAY_SERVICE; it is only read.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import httpx
import pytest
from graphql import build_client_schema, get_introspection_query, parse, validate
from pydantic import SecretStr

from blocks.targets.railway.client import DOCUMENTS
from blocks.targets.railway.target import RailwayTarget
from blocks.targets.vercel.target import VercelTarget
from headway.domain.plan import Plan
from headway.domain.revision import Artifact, Health, LaunchSpec
from headway.domain.traffic import Traffic

VERCEL = os.environ.get("HEADWAY_TEST_VERCEL_TOKEN")
RAILWAY = os.environ.get("HEADWAY_TEST_RAILWAY_TOKEN")


@pytest.mark.skipif(not VERCEL, reason="asks the real Vercel: set HEADWAY_TEST_VERCEL_TOKEN")
def test_page_is_deployed_to_vercel(tmp_path: Path) -> None:
    target = VercelTarget(
        directory=tmp_path / "state",
        token=SecretStr(VERCEL or ""),
        project=os.environ["HEADWAY_TEST_VERCEL_PROJECT"],
        team=os.environ.get("HEADWAY_TEST_VERCEL_TEAM"),
        domain=os.environ["HEADWAY_TEST_VERCEL_ALIAS"],
        environment="preview",
    )
    page = tmp_path / "page"
    page.mkdir()
    (page / "index.html").write_text(f"<p>{time.time()}")
    artifact = Artifact(digest="sha256:" + "a" * 64, location=str(page), size=1)
    spec = LaunchSpec(environment="staging", artifact=artifact, health=Health(path="/"))
    revision = spec.revision("headway-live-test", f"{int(time.time()):040x}")
    target.launch(revision, spec)
    end = time.monotonic() + 300
    while not (said := target.ready(revision)).ready:
        assert not said.failed, said.detail
        assert time.monotonic() < end, said.detail
    target.route("headway-live-test", Traffic.all_to(revision))
    assert target.observe("headway-live-test").live == revision.id
    assert list(target.logs("headway-live-test"))
    target.route("headway-live-test", Traffic())
    assert target.observe("headway-live-test").traffic == Traffic()


@pytest.mark.skipif(not RAILWAY, reason="asks the real Railway: set HEADWAY_TEST_RAILWAY_TOKEN")
def test_railway_schema_has_every_used_field(tmp_path: Path) -> None:
    service = os.environ["HEADWAY_TEST_RAILWAY_SERVICE"]
    target = RailwayTarget(directory=tmp_path, token=SecretStr(RAILWAY or ""), service=service)
    asked = httpx.post(
        target.url,
        json={"query": get_introspection_query()},
        headers={"Project-Access-Token": RAILWAY or ""},
        timeout=60,
    )
    schema = build_client_schema(asked.json()["data"], assume_valid=True)
    faults = {name: validate(schema, parse(text)) for name, text in DOCUMENTS.items()}
    assert not any(faults.values()), faults
    target.check("shop", Plan(strategy="recreate", new="", old=None, steps=()))
    target.observe("shop")
