"""Releases to hosted platforms: success, a failing build, a smoke test that fails after the switch."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.conftest import Headway, Repo, Up
from tests.standins import railway as railways
from tests.standins import vercel as vercels
from tests.standins.hosted_apps import Trust

pytestmark = pytest.mark.e2e

SETTINGS = """
app: {app}
checks: {{check: "true"}}
health: {{startup: 20s}}
environments:
  staging: {{target: %(kind)s/staging, strategy: blue_green, smoke: [{{get: /, version: true, deadline: 3s}}]}}
  production: {{target: %(kind)s/production, strategy: blue_green, smoke: [{{get: /, version: true, deadline: 3s}}]}}
"""
FAILS_WHEN_LIVE = """    global asked
    asked += path == '/'
    return (500 if asked > %(grace)s and os.environ['HEADWAY_ENVIRONMENT'] == 'production' else 200), {}

asked = 0
"""
VERCEL = """
from blocks.targets.vercel.target import VercelTarget
given = dict(url="%(url)s", token="%(token)s", team="%(team)s", bypass="%(bypass)s", project="shop", poll=0.1)
VercelTarget(**given, domain="%(preview)s", environment="preview").save("staging", overwrite=True)
VercelTarget(**given, domain="%(production)s").save("production", overwrite=True)
"""
RAILWAY = """
from blocks.targets.railway.target import RailwayTarget
given = dict(url="%(url)s", service="shop", poll=0.1, overlap=1)
RailwayTarget(**given, token="%(staging)s").save("staging", overwrite=True)
RailwayTarget(**given, token="%(production)s").save("production", overwrite=True)
"""


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Trust:
    return Trust(tmp_path_factory.mktemp("trust"))


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory, authority: Trust) -> Iterator[Up]:
    """A service whose worker believes the stand-ins' certificates."""
    up = Up(tmp_path_factory.mktemp("hosted"), SSL_CERT_FILE=str(authority.authority)).with_database()
    with up.running():
        yield up


@pytest.fixture
def headway(own: Up) -> Headway:
    return Headway(own)


def save(headway: Headway, script: str) -> None:
    with headway.control() as control:
        environment = {**os.environ, "PREFECT_API_URL": control.url, "PREFECT_API_AUTH_STRING": headway.login}
    subprocess.run([sys.executable, "-c", script], env=environment, check=True, timeout=60, capture_output=True)


def written(headway: Headway, *secrets: str) -> list[Path]:
    """Files of the service, including logs and databases, that contain a secret in plain text."""
    files = [file for file in headway.home.rglob("*") if file.is_file()]
    return [file for file in files for secret in secrets if secret.encode() in file.read_bytes()]


def version(authority: Trust, host: str) -> str:
    context = ssl.create_default_context(cafile=str(authority.authority))
    return str(httpx.get(f"https://{host}", trust_env=False, verify=context).json()["version"])


def test_vercel_release_and_rollback_of_a_bad_one(headway: Headway, authority: Trust, tmp_path: Path) -> None:
    with vercels.vercel(tmp_path / "vercel", authority) as server:
        server.protected = True
        given = {"url": server.url, "token": vercels.TOKEN, "team": vercels.TEAM, "bypass": vercels.BYPASS}
        save(headway, VERCEL % {**given, "preview": server.preview, "production": server.production})
        repo = Repo(tmp_path / "app", "on-vercel", SETTINGS % {"kind": "vercel"})
        first = repo.git("rev-parse", "HEAD")
        assert headway.release(repo.path)["state"] == "succeeded"
        assert version(authority, server.production) == first
        good = repo.behave("    return 200, {'newer': True}")
        assert headway.release(repo.path)["state"] == "succeeded"
        assert version(authority, server.production) == good

        repo.commit("unbuildable", {"vercel-build.sh": "echo no module named shop; exit 3"})
        told = headway.release(repo.path, code=1)
        assert told["state"] == "rolled_back"
        assert "no module named shop" in told["reason"]
        assert version(authority, server.production) == good

        repo.commit("buildable", {"vercel-build.sh": "true"})
        repo.behave(FAILS_WHEN_LIVE % {"grace": 1})  # it passes at its own address, before it is promoted
        told = headway.release(repo.path, code=1)
        assert told["state"] == "rolled_back"
        assert "expected status 200" in told["reason"]
        assert version(authority, server.production) == good
        assert [kind for kind in ("promote", "rollback") if any(f"/{kind}/" in path for _, path in server.calls)] == [
            "promote",
            "rollback",
        ]
        headway.run("rollback", "on-vercel", "production")
        assert version(authority, server.production) == first
        logs = headway.run("logs", "on-vercel", "production").stdout
        assert "Build Completed" in logs
        secrets = (vercels.TOKEN, vercels.BYPASS)
        assert not any(
            secret in file.read_text() for file in (headway.home / "logs").glob("*.log") for secret in secrets
        )
        canary = (SETTINGS % {"kind": "vercel"}).replace(
            "production, strategy: blue_green", "production, strategy: canary"
        )
        repo.commit("canary", {"headway.yaml": canary.format(app="on-vercel")})
        assert "rolling releases are off" in headway.run("plan", "production", repo.path, code=2).stderr


def test_railway_release_and_rollback_of_a_bad_one(headway: Headway, authority: Trust, tmp_path: Path) -> None:
    with railways.railway(tmp_path / "railway", authority) as server:
        repo = Repo(tmp_path / "app", "on-railway", SETTINGS % {"kind": "railway"})
        server.repository = repo.path
        staging, production = (server.environments[one] for one in (railways.STAGING, railways.PRODUCTION))
        tokens = {"staging": railways.TOKENS[staging.id], "production": railways.TOKENS[production.id]}
        save(headway, RAILWAY % {"url": server.url, **tokens})
        first = repo.git("rev-parse", "HEAD")
        assert headway.release(repo.path)["state"] == "succeeded"
        host = production.domain
        assert host is not None
        assert version(authority, host) == first
        good = repo.behave("    return 200, {'newer': True}")
        assert headway.release(repo.path)["state"] == "succeeded"
        assert version(authority, host) == good

        repo.commit("unbuildable", {"build.sh": "echo no module named shop; exit 3"})
        told = headway.release(repo.path, code=1)
        assert "no module named shop" in told["reason"]
        assert version(authority, host) == good

        repo.commit("buildable", {"build.sh": "true"})
        repo.behave(FAILS_WHEN_LIVE % {"grace": 0})
        told = headway.release(repo.path, code=1)
        assert told["state"] == "rolled_back"
        assert "expected status 200" in told["reason"]
        assert version(authority, host) == good
        assert server.operations.count("rollBack") == 1
        headway.run("rollback", "on-railway", "production")
        assert version(authority, host) == first
        assert "listening on" in headway.run("logs", "on-railway", "production").stdout
        secrets = (*railways.TOKENS.values(),)
        assert not any(
            secret in file.read_text() for file in (headway.home / "logs").glob("*.log") for secret in secrets
        )
        production.volume = "/data"
        assert "has a volume at /data" in headway.run("plan", "production", repo.path, code=2).stderr
