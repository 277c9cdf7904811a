"""Invalid input: one clear error that says where and what to do, and nothing partly deployed."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.e2e.conftest import HEADWAY, SETTINGS, Headway, Repo, Up
from tests.standins.repositories import Repository

pytestmark = pytest.mark.e2e

MEASURED = (
    SETTINGS
    + "    strategy: {{rolling: {{analysis: {{metrics: {{orders: "
    + '{{source: %s/nowhere, query: orders, limit: ">= 5"}}}}}}}}}}\n'
)


def refused(headway: Headway, *arguments: str | Path, code: int = 2) -> str:
    """The error and its hint; never a traceback."""
    done = headway.run(*arguments, code=code)
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stdout + done.stderr
    return done.stderr


def test_files_of_the_folder_where_headway_was_started_are_not_imported(headway: Headway, repo: Repo, up: Up) -> None:
    """They have the names of modules of Headway, Prefect and their libraries; see `Up.start`."""
    assert (up.folder / "blocks.py").exists()
    headway.run("release", repo.path)
    assert [record.state for record in headway.ledger.releases.recent(repo.app)] == ["succeeded"]
    logs = [log for log in (up.home / "logs").iterdir() if "imported: " in log.read_text(errors="replace")]
    assert logs == []


def test_an_unknown_key_and_a_wrong_type(headway: Headway, repo: Repo) -> None:
    text = (repo.path / "headway.yaml").read_text()
    repo.commit("wrong", {"headway.yaml": text.replace("instances: 2", "instances: two") + "chekcs: {}\n"})
    said = refused(headway, "release", repo.path)
    assert "did you mean 'checks'?" in said
    assert "environments/production/instances" in said
    assert "headway.yaml:" in said
    assert headway.ledger.releases.recent(repo.app) == []


def test_invalid_file_found_by_the_flow(headway: Headway, repo: Repo) -> None:
    sha = repo.commit("wrong", {"headway.yaml": "app: [1]\n"})
    said = refused(headway, "release", repo.path, "--ref", sha, code=1)
    assert "headway.yaml:1: app" in said


def test_a_missing_command(headway: Headway, repo: Repo) -> None:
    text = (repo.path / "headway.yaml").read_text()
    repo.commit("wrong", {"headway.yaml": text.replace('check: "true"', "check: no-such-program --fast")})
    told = headway.release(repo.path, code=1)
    assert told["state"] == "failed"
    assert "no-such-program" in told["reason"]
    assert "not found" in told["reason"]


def test_a_ref_that_does_not_exist(headway: Headway, repo: Repo) -> None:
    assert "mian" in refused(headway, "release", repo.path, "--ref", "mian")


def test_a_dirty_repository(headway: Headway, repo: Repo) -> None:
    (repo.path / "app.py").write_text("changed")
    said = refused(headway, "release", repo.path)
    assert "uncommitted changes: app.py" in said
    assert "--ref HEAD" in said


def test_a_bare_repository(headway: Headway, repo: Repo, tmp_path: Path) -> None:
    bare = tmp_path / "bare.git"
    subprocess.run(["git", "clone", "--quiet", "--bare", repo.path, bare], check=True)
    assert "name a commit with --ref" in refused(headway, "release", bare)
    headway.release(bare, "--ref", "main", "--to", "staging")


def test_an_empty_repository_and_none_at_all(headway: Headway, tmp_path: Path) -> None:
    assert "git" in refused(headway, "release", tmp_path)
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    assert "no commit" in refused(headway, "release", tmp_path)
    assert "no such directory" in refused(headway, "release", tmp_path / "nowhere")


def test_a_repository_without_headway_yaml(headway: Headway, repo: Repo) -> None:
    repo.git("rm", "--quiet", "headway.yaml")
    repo.commit("forgotten", {})
    assert "no headway.yaml" in refused(headway, "release", repo.path)


def test_a_taken_port(headway: Headway, repo: Repo) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        text = (repo.path / "headway.yaml").read_text().replace("staging: {", f"staging: {{port: {port}, ")
        repo.commit("port", {"headway.yaml": text})
        told = headway.release(repo.path, code=1)
    assert f"environments/staging/port: {port} on 127.0.0.1 is taken" in told["reason"]
    assert headway.ledger.rollouts.live(repo.app, "staging") is None


def test_a_taken_port_for_up(headway: Headway, tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        environment = headway.environment | {"HEADWAY_HOME": str(tmp_path)}
        done = subprocess.run(
            [*HEADWAY, "up", "--prefect-port", str(port)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 2
    assert f"port {port} on 127.0.0.1 is taken" in done.stderr
    assert "--prefect-port" in done.stderr


def test_a_second_up(headway: Headway) -> None:
    assert "headway is up already" in refused(headway, "up", "--port", "0", "--prefect-port", "0")


def test_a_target_that_does_not_exist(headway: Headway, repo: Repo) -> None:
    text = (repo.path / "headway.yaml").read_text().replace("process/production", "process/nowhere")
    repo.commit("target", {"headway.yaml": text})
    told = headway.release(repo.path, code=1)
    assert "target process/nowhere" in told["reason"]
    assert told["state"] == "failed"
    assert headway.ledger.rollouts.environments(repo.app) == []  # staging was not rolled out first
    repo.commit("platform", {"headway.yaml": text.replace("process/nowhere", "mainframe/one")})
    refused = headway.run("release", repo.path, code=2).stderr  # found in headway.yaml, before anything starts
    assert "environments/production/target: no platform is called 'mainframe'" in refused
    assert "there are: docker, kubernetes, process" in refused


def test_a_metric_source_that_does_not_exist(headway: Headway, tmp_path: Path) -> None:
    repo = Repo(tmp_path / "app", "unmeasured", MEASURED % "prometheus")
    told = headway.release(repo.path, code=1)
    assert "metric source prometheus/nowhere: no prometheus block has the name 'nowhere'" in told["reason"]
    assert told["state"] == "failed"  # nothing was changed yet
    repo.commit("kind", {"headway.yaml": (MEASURED % "abacus").format(app="unmeasured")})
    assert "no kind of metric source is called 'abacus'" in headway.release(repo.path, code=1)["reason"]


def test_file_names_and_subjects_that_are_not_utf_8_are_released(headway: Headway, repo: Repo) -> None:
    Path(os.fsdecode(bytes(repo.path) + b"/bad\xff.bin")).write_text("content")
    repo.git("add", "-A")
    message = repo.path.parent / "message"
    message.write_bytes("caf\u00e9".encode("latin-1"))
    repo.git("commit", "--quiet", "-F", str(message))
    told = headway.release(repo.path)
    assert told["state"] == "succeeded"
    assert told["subject"].startswith("caf")


def test_repository_with_sha_256_is_released(headway: Headway, repo: Repo, tmp_path: Path) -> None:
    modern = Repository(tmp_path / "modern", object_format="sha256")
    for file in ("app.py", "headway.yaml"):
        (modern.path / file).write_text((repo.path / file).read_text())
    sha = modern.commit("First")
    told = headway.release(modern.path)
    assert (told["state"], told["sha"]) == ("succeeded", sha)
    assert len(sha) == 64


def test_install_with_a_full_disk(headway: Headway, repo: Repo) -> None:
    """A file-size limit simulates a full disk: the build fails, and nothing is deployed."""
    text = (repo.path / "headway.yaml").read_text() + "build: {install: 'ulimit -f 1; yes > big'}\n"
    repo.commit("big", {"headway.yaml": text})
    told = headway.release(repo.path, code=1)
    assert told["state"] == "failed"
    assert [stage["name"] for stage in told["stages"] if stage["state"] == "failed"] == ["build"]
    assert headway.ledger.rollouts.live(repo.app, "staging") is None


def test_unknown_names(headway: Headway, repo: Repo) -> None:
    headway.release(repo.path, "--to", "staging")
    assert repo.app in refused(headway, "history", "nobody")
    assert "it is in: staging" in refused(headway, "logs", repo.app, "production")
    assert "there are: staging" in refused(headway, "rollback", repo.app, "production")
    assert "there is no earlier revision" in refused(headway, "rollback", repo.app, "staging", code=1)
    assert "no release shop#99" in refused(headway, "approve", "shop#99")
    assert "does not go there" in refused(headway, "release", repo.path, "--to", "nowhere")


def test_errors_as_json(headway: Headway, tmp_path: Path) -> None:
    done = headway.run("release", tmp_path / "nowhere", "--json", code=2)
    told = json.loads(done.stdout)
    assert told["exit_code"] == 2
    assert "no such directory" in told["error"]
    assert done.stderr == ""


def test_no_server(headway: Headway, repo: Repo, tmp_path: Path) -> None:
    environment = headway.environment | {"HEADWAY_HOME": str(tmp_path / "other")}
    for more in ({}, {"PREFECT_API_URL": "http://127.0.0.1:9/api"}):
        done = subprocess.run(
            [*HEADWAY, "release", repo.path],
            env=environment | more,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 2
        assert "headway up" in done.stderr


def test_ctrl_c_while_following_says_that_the_release_continues(headway: Headway, repo: Repo) -> None:
    text = (repo.path / "headway.yaml").read_text().replace('check: "true"', "check: sleep 5")
    repo.commit("slow", {"headway.yaml": text})
    following = subprocess.Popen(
        [*HEADWAY, "release", repo.path],
        env=headway.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    headway.until(lambda: headway.ledger.releases.recent(repo.app))
    following.send_signal(signal.SIGINT)
    said, _ = following.communicate(timeout=30)
    assert following.returncode == 130
    assert "the release goes on" in said
    headway.until(lambda: headway.ledger.releases.recent(repo.app)[0].state == "succeeded")


def test_health_endpoint_of_headway(headway: Headway) -> None:
    web = json.loads((headway.home / "up.json").read_text())["web_url"]
    headway.until(lambda: httpx.get(f"{web}/health", trust_env=False).json()["checks"]["sweep"] == "ok")
