"""An installation of the last release, with pending work of every kind, continues after an upgrade in place.

A wheel of the last release and a wheel of this checkout are installed into the same virtual environment, one after
the other, with the same HEADWAY_HOME.
"""

from __future__ import annotations

import json
import shutil
import signal
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest

from headway.system.os_user import os_user
from tests.upgrade.installation import ROOT, SECRET, Installation, Users, last_release, until
from tests.upgrade.repositories import MIGRATE, PullRequest, Repository

pytestmark = pytest.mark.e2e

LIVE = """
app: live
checks: {check: "true"}
run: exec python3 app.py
env: {TOKEN: {secret: true}}
environments:
  staging: {target: process/staging, env: {TOKEN: !secret upgrade}}
  production:
    target: process/production
    env: {TOKEN: !secret upgrade}
    instances: 2
    stop_grace: 2s
    drain: 2s
    strategy: {blue_green: {scale_down_delay: 1h}}
"""
# Uses many keys: the new version reads the settings again.
WAITING = """
app: waiting
on: {paths: [app.py, headway.yaml]}
checks: {check: {run: "true", timeout: 1m, inputs: {paths: [app.py], tools: [git --version]}}}
run: exec python3 app.py
health: {path: /health, startup: 30s}
env:
  LEVEL: {choices: [debug, info], default: info}
  PAGES: {type: integer, default: 3}
  HOME_PAGE: {type: url, default: "https://example.com"}
  TOKEN: {secret: true, required: [production]}
readiness: {attest: {runbook: {by: ann, on: 2020-01-02, until: 2999-01-01}}}
resources: {memory: 256Mi, cpu: 500m}
environments:
  staging:
    target: process/staging
    env: {TOKEN: !secret upgrade}
    smoke: [{get: /health, version: true, deadline: 5s}]
  production:
    target: process/production
    env: {TOKEN: !secret upgrade}
    approval: {by: [APPROVER], expires: 2h}
    freeze: ["2019-12-19 12:00 - 2020-01-04 08:00 Europe/Berlin", "holidays DE-BW Europe/Berlin"]
    strategy:
      rolling: {analysis: {window: 1s, success_rate: ">= 99", p99: "<= 500ms"}}
""".replace("APPROVER", os_user().name)
SCHEMA = """
app: schema
run: exec python3 app.py
migrations: {{apply: python3 migrate.py, files: [migrations/*.sql], rollback_window: 1h}}
environments:
  production: {{target: process/production, stop_grace: 2s, drain: 2s, env: {{DATABASE: {database}}}}}
"""
STOREFRONT = """
app: storefront
run: exec python3 app.py
environments:
  preview: {target: process/preview, stop_grace: 2s, drain: 1s}
  production: {target: process/production}
"""
RESUMED = """
SELECT name, stages.finished_at FROM stages JOIN releases ON releases.id = stages.release_id
WHERE app = 'waiting' AND name IN ('check', 'staging') ORDER BY name
"""
"""Stages of `waiting` that have passed before the upgrade, and are not repeated after it."""


@pytest.fixture
def installation() -> Iterator[Installation]:
    place = Path(tempfile.mkdtemp(prefix="headway-upgrade-"))
    made = Installation(place)
    try:
        yield made
    finally:
        left = made.end()
        shutil.rmtree(place)
    assert left == []


class Apps:
    """What the last release runs when it is upgraded."""

    def __init__(self, installation: Installation) -> None:
        place = installation.place
        self.installation = installation
        self.database = place / "schema.db"
        self.live = Repository(place / "apps/live", LIVE)
        self.waiting = Repository(place / "apps/waiting", WAITING)
        self.schema = Repository(place / "apps/schema", SCHEMA.format(database=self.database))
        self.schema.commit(
            {"migrate.py": MIGRATE, "migrations/1.sql": "CREATE TABLE orders (id INTEGER, note TEXT, remark TEXT)"}
        )
        storefront = Repository(place / "apps/storefront", STOREFRONT)
        self.pull_request = PullRequest(storefront, place / "git/acme/storefront.git")

    def release(self) -> None:
        """Release each of them, two at a time."""
        run, begin = self.installation.run, self.installation.begin
        run("app", "add", self.pull_request.url, "--name", "storefront", "--host", "gitea", "--secret", "hook")
        live, schema = begin("release", self.live.path), begin("release", self.schema.path)
        live.done()
        self.first = self.live.head
        self.second = self.live.commit()
        live = begin("release", self.live.path)
        schema.done()
        self.schema.commit({"migrations/2.sql": "ALTER TABLE orders DROP COLUMN note"})
        schema = begin("release", self.schema.path)
        live.done()
        self.installation.start_release(self.waiting.path, "main")
        schema.done()
        self.shown = self.pull_request.push()
        self.installation.deliver(*self.pull_request.webhook("opened"))
        until(lambda: state(self.installation, "waiting") == "waiting")
        self.approved = self.waiting.head
        self.waiting.commit()  # a newer commit on main, without a release
        until(lambda: self.installation.versions("storefront-pr-1", "preview") == {self.shown: 1})

    def columns(self) -> set[str]:
        """Of the table of the app `schema`."""
        with closing(sqlite3.connect(self.database)) as db:
            return {row[1] for row in db.execute("PRAGMA table_info(orders)")}


def test_an_upgrade_in_place(installation: Installation) -> None:
    version, tree = last_release(installation.place / "last-release")
    installation.install(tree)
    assert installation.run("--version") == f"headway {version}\n"
    installation.start()
    apps = Apps(installation)
    apps.release()
    with Users(installation.port("live", "production")) as users:
        upgrade(installation, apps)
        what_waited_is_shown(installation)
        the_approved_commit_goes_to_production(installation, apps)
        the_contract_migration_is_done(installation, apps)
        the_scheduled_scale_down_stops_the_idle_revision(installation, apps)
        a_killed_instance_is_started_again(installation, apps)
        the_preview_is_updated_and_torn_down(installation, apps)
        a_release_is_rolled_back_to_the_revision_of_the_old_version(installation, apps)
    assert users.failures == []
    assert sum(users.answers.values()) > 100
    assert SECRET not in "".join(log.read_text() for log in installation.home.glob("targets/**/*.log"))
    assert installation.stop() == 0


def upgrade(installation: Installation, apps: Apps) -> None:
    """Stop, install, start. What the apps' users talk to is not touched."""
    services = {one.pid: one for one in (*installation.supervisors(), *installation.proxies())}
    instances = installation.instances("live", "production")
    assert installation.stop() == 0
    assert all(one.is_running() for one in (*services.values(), *instances))
    installation.install(ROOT)
    installation.start()
    assert all(one.is_running() for one in (*services.values(), *instances))
    assert {one.pid for one in (*installation.supervisors(), *installation.proxies())} == set(services)
    assert installation.versions("live", "production") == {apps.first: 2, apps.second: 2}


def what_waited_is_shown(installation: Installation) -> None:
    said = installation.run("status")
    for words in ("waiting#1", "headway approve waiting#1", "contract", "storefront"):
        assert words in said
    assert [one["number"] for one in json.loads(installation.run("previews", "--json"))] == [1]


def the_approved_commit_goes_to_production(installation: Installation, apps: Apps) -> None:
    (run,) = installation.rows("SELECT flow_run_id, digest FROM releases WHERE app = 'waiting'")
    passed = installation.rows(RESUMED)
    installation.run("approve", "waiting#1")
    until(lambda: state(installation, "waiting") not in ("waiting", "running"))
    ended = installation.rows("SELECT state, reason FROM releases WHERE app = 'waiting'")
    assert ended == [("succeeded", "")]
    assert installation.versions("waiting", "production") == {apps.approved: 1}
    assert installation.rows("SELECT flow_run_id, digest FROM releases WHERE app = 'waiting'") == [run]
    assert installation.rows(RESUMED) == passed


def state(installation: Installation, app: str) -> str:
    """Of the newest release of the app."""
    found = installation.rows("SELECT state FROM releases WHERE app = ? ORDER BY number DESC LIMIT 1", app)
    return str(found[0][0]) if found else ""


def the_contract_migration_is_done(installation: Installation, apps: Apps) -> None:
    assert apps.columns() == {"id", "note", "remark"}
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
    installation.rows("UPDATE schema_changes SET due_at = ? WHERE app = 'schema' AND kind = 'contract'", now)
    until(lambda: apps.columns() == {"id", "remark"})
    done = "SELECT state FROM schema_changes WHERE app = 'schema' AND kind = 'contract'"
    until(lambda: installation.rows(done) == [("done",)])


def the_scheduled_scale_down_stops_the_idle_revision(installation: Installation, apps: Apps) -> None:
    (run,) = installation.prefect("flow_runs/filter", {"flows": {"name": {"any_": ["scale-down"]}}})
    assert run["state_type"] == "SCHEDULED"
    now = {"type": "SCHEDULED", "state_details": {"scheduled_time": datetime.now(UTC).isoformat()}}
    installation.prefect(f"flow_runs/{run['id']}/set_state", {"state": now, "force": True})
    until(lambda: installation.versions("live", "production") == {apps.second: 2})


def a_killed_instance_is_started_again(installation: Installation, apps: Apps) -> None:
    killed, other = installation.instances("live", "production")
    killed.send_signal(signal.SIGKILL)
    psutil.wait_procs([killed], timeout=60)
    until(lambda: installation.versions("live", "production") == {apps.second: 2})
    assert other.is_running()


def the_preview_is_updated_and_torn_down(installation: Installation, apps: Apps) -> None:
    pushed = apps.pull_request.push()
    installation.deliver(*apps.pull_request.webhook("synchronized"))
    until(lambda: installation.versions("storefront-pr-1", "preview") == {pushed: 1})
    installation.deliver(*apps.pull_request.webhook("closed"))
    until(lambda: json.loads(installation.run("previews", "--json")) == [])
    assert installation.instances("storefront-pr-1", "preview") == []


def a_release_is_rolled_back_to_the_revision_of_the_old_version(installation: Installation, apps: Apps) -> None:
    before = installation.live("live", "production")
    third = apps.live.commit()
    installation.run("release", apps.live.path)
    assert third.startswith(str(installation.live("live", "production")).split("-")[0])
    installation.run("rollback", "live", "production", "--reason", "a test")
    assert installation.live("live", "production") == before
    assert installation.versions("live", "production")[apps.second] == 2
