"""What scanners say of known vulnerabilities: pip-audit and npm themselves, the others in the words of their docs."""

from __future__ import annotations

import json
import shutil
import sys
import threading
from collections.abc import Iterator
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from headway.readiness import vulnerabilities
from headway.readiness.checklist import Finding, assess

DAY = date(2026, 11, 25)


class Service(BaseHTTPRequestHandler):
    """Knows of vulnerabilities, as npm's registry and OSV do, or has its bad day."""

    known: ClassVar[dict[str, Any]] = {}
    away: ClassVar[bool] = False

    def do_POST(self) -> None:
        asked = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        # npm packs what it asks, and is told of more than it uses; OSV is asked for one package at a time.
        known = self.known if self.path != "/osv" else self.known.get(json.loads(asked)["package"]["name"], {})
        body = json.dumps(known).encode()
        self.send_response(503 if self.away else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self.send_error(404)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def service() -> Iterator[str]:
    Service.known, Service.away = {}, False
    server = ThreadingHTTPServer(("127.0.0.1", 0), Service)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    made = tmp_path / "tree"
    made.mkdir()
    return made


@pytest.fixture
def scanner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only directory where programs are looked for, but for the system's."""
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", f"{programs}:/bin")
    return programs


def install(programs: Path, name: str, says: str, code: int = 0, complains: str = "") -> None:
    program = programs / name
    program.write_text(f"#!/bin/sh\ncat <<'END'\n{says}\nEND\necho '{complains}' >&2\nexit {code}\n")
    program.chmod(0o755)


# --- npm itself ------------------------------------------------------------------------------------------------

LODASH = {
    "id": 1065,
    "url": "https://example.com/lodash",
    "title": "Prototype Pollution",
    "severity": "high",
    "vulnerable_versions": "<4.17.19",
}


@pytest.fixture
def node(tree: Path, service: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An app with one dependency, and a registry of ours."""
    if shutil.which("npm") is None:
        pytest.skip("no npm on this machine: apt-get install npm")
    lodash = {"version": "4.17.15", "resolved": f"{service}/lodash.tgz"}
    root = {"name": "app", "version": "1.0.0", "dependencies": {"lodash": "4.17.15"}}
    lock = {"name": "app", "version": "1.0.0", "lockfileVersion": 3, "packages": {"": root}}
    (tree / "package.json").write_text(json.dumps(root))
    (tree / "package-lock.json").write_text(json.dumps(lock | {"packages": {"": root, "node_modules/lodash": lodash}}))
    (tree / ".npmrc").write_text(f"registry={service}\nfetch-retries=0\nupdate-notifier=false\n")
    return tree


async def test_npm_that_knows_a_vulnerability(node: Path) -> None:
    Service.known = {"lodash": [LODASH]}
    assert await vulnerabilities.examine(node) == (False, "npm: 1 known: lodash (high)")


async def test_npm_that_knows_of_none(node: Path) -> None:
    assert await vulnerabilities.examine(node) == (True, "npm: none known")


async def test_npm_whose_registry_cannot_say(node: Path) -> None:
    Service.away = True
    found = await vulnerabilities.examine(node)
    assert found is not None
    assert found.passes is None
    assert found.evidence.startswith("npm: 503 Service Unavailable - POST http://127.0.0.1")


# --- pip-audit itself ------------------------------------------------------------------------------------------


@pytest.fixture
def python(tree: Path, service: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An app with one dependency, and an OSV of ours. pip itself comes from the index."""
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:/usr/bin:/bin")
    monkeypatch.setenv("PIP_AUDIT_VULNERABILITY_SERVICE", "osv")
    monkeypatch.setenv("PIP_AUDIT_OSV_URL", f"{service}/osv")
    (tree / "requirements.txt").write_text("idna==3.6\n")
    return tree


async def test_pip_audit_that_knows_a_vulnerability(python: Path) -> None:
    ranges = [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "3.7"}]}]
    affected = [{"package": {"name": "idna", "ecosystem": "PyPI"}, "ranges": ranges, "versions": ["3.6"]}]
    known = {"id": "PYSEC-2024-60", "summary": "slow", "affected": affected, "modified": "2024-04-12T00:00:00Z"}
    Service.known = {"idna": {"vulns": [known | {"published": "2024-04-11T00:00:00Z"}]}}
    found = await vulnerabilities.examine(python)
    assert found is not None
    if found.passes is None and "virtual environment" in found.evidence:
        pytest.skip(f"no package index to be reached: {found.evidence}")
    assert found == (False, "pip-audit: 1 known: idna PYSEC-2024-60")


# --- in their words --------------------------------------------------------------------------------------------

SKIPPED = {"name": "a", "skip_reason": "Dependency not found on PyPI and could not be audited: a (1)"}
SOUND = {"name": "b", "version": "1", "vulns": []}
SICK = {"name": "c", "version": "1", "vulns": [{"id": "CVE-1"}, {"id": "CVE-2"}, {"id": "CVE-3"}, {"id": "CVE-4"}]}
OSV = {
    "results": [
        {
            "source": {"path": "/go.mod", "type": "lockfile"},
            "packages": [{"package": {"name": "x", "version": "1"}, "vulnerabilities": [{"id": "GO-1"}]}],
        }
    ]
}
TRIVY = {"SchemaVersion": 2, "Results": [{"Vulnerabilities": [{"PkgName": "x", "VulnerabilityID": "CVE-1"}]}]}


def pip(*dependencies: object) -> str:
    return json.dumps({"dependencies": dependencies, "fixes": []})


@pytest.mark.parametrize(
    ("file", "program", "says", "code", "wanted"),
    [
        ("requirements.txt", "pip-audit", pip(SOUND), 0, (True, "pip-audit: none known")),
        (
            "requirements.txt",
            "pip-audit",
            pip(SOUND, SKIPPED, SICK),
            1,
            (False, "pip-audit: 4 known: c CVE-1, c CVE-2, c CVE-3 and 1 more"),
        ),
        (
            "requirements.txt",
            "pip-audit",
            pip(SOUND, SKIPPED),  # which it ends with 0
            0,
            (None, f"pip-audit: 1 of 2 not looked at: {SKIPPED['skip_reason']}"),
        ),
        ("requirements.txt", "pip-audit", "no json", 2, (None, "pip-audit: it went wrong")),
        ("package-lock.json", "npm", '{"error": {"summary": "away"}}', 1, (None, "npm: away")),
        ("package-lock.json", "npm", "{}", 1, (None, "npm: it went wrong")),
        ("README", "npm", "{}", 1, None),
        ("README", "osv-scanner", '{"results": []}', 0, (True, "osv-scanner: none known")),
        ("README", "osv-scanner", json.dumps(OSV), 1, (False, "osv-scanner: 1 known: x GO-1")),
        ("README", "osv-scanner", "", 127, (None, "osv-scanner: it went wrong")),
        ("README", "trivy", json.dumps(TRIVY), 0, (False, "trivy: 1 known: x CVE-1")),
        ("README", "trivy", '{"SchemaVersion": 2}', 0, (True, "trivy: none known")),
        ("README", "trivy", "{}", 0, (None, "trivy: it went wrong")),
        ("go.mod", "govulncheck", "", 3, (False, "govulncheck: vulnerabilities that the code reaches")),
        ("go.mod", "govulncheck", "", 0, (True, "govulncheck: none that the code reaches")),
        ("go.mod", "govulncheck", "", 1, (None, "govulncheck: it went wrong")),
    ],
)
async def test_scanners_are_believed_only_when_they_have_looked(
    tree: Path, scanner: Path, file: str, program: str, says: str, code: int, wanted: tuple[bool | None, str] | None
) -> None:
    (tree / file).touch()
    install(scanner, program, says, code, "it went wrong")
    assert await vulnerabilities.examine(tree) == wanted


@pytest.mark.parametrize(
    ("pip_audit", "npm", "wanted"),
    [
        (pip(SOUND), '{"vulnerabilities": {"x": {"severity": "low"}}}', (False, "npm: 1 known: x (low)")),
        (pip(SKIPPED), '{"vulnerabilities": {"x": {"severity": "low"}}}', (False, "npm: 1 known: x (low)")),
        (pip(SOUND), '{"message": "away"}', (None, "npm: away")),
        (pip(SOUND), '{"vulnerabilities": {}}', (True, "pip-audit: none known; npm: none known")),
    ],
)
async def test_an_app_in_two_languages_is_as_good_as_the_worse(
    tree: Path, scanner: Path, pip_audit: str, npm: str, wanted: tuple[bool | None, str]
) -> None:
    (tree / "requirements.txt").touch()
    (tree / "package-lock.json").touch()
    install(scanner, "pip-audit", pip_audit)
    install(scanner, "npm", npm, 1)
    assert await vulnerabilities.examine(tree) == wanted


async def test_what_a_lock_file_says_better_is_not_resolved_anew(tree: Path, scanner: Path) -> None:
    install(scanner, "pip-audit", pip(SOUND))
    (tree / "pyproject.toml").touch()
    assert await vulnerabilities.examine(tree) == (True, "pip-audit: none known")
    (tree / "uv.lock").touch()  # which it cannot read, and other versions are no answer
    assert await vulnerabilities.examine(tree) == (None, "uv.lock: osv-scanner or trivy would read it")


async def test_one_that_cannot_look_does_not_silence_another(tree: Path, scanner: Path) -> None:
    (tree / "package-lock.json").touch()
    install(scanner, "osv-scanner", "", 127, "no network")
    install(scanner, "npm", '{"vulnerabilities": {}}')
    assert await vulnerabilities.examine(tree) == (True, "npm: none known")


async def test_without_a_scanner_nothing_is_known(tree: Path, scanner: Path) -> None:
    assert await vulnerabilities.examine(tree) is None
    (tree / "go.mod").touch()
    (tree / "package-lock.json").touch()
    install(scanner, "npm", '{"vulnerabilities": {}}')
    assert await vulnerabilities.examine(tree) == (None, "govulncheck is not installed")


def test_what_could_not_be_found_out_is_unknown_and_says_why() -> None:
    found = {"vulnerabilities": Finding(None, "npm: away")}
    (result,) = (one for one in assess(found, {}, [], DAY) if one.name == "vulnerabilities")
    assert (result.state, result.evidence) == ("unknown", "npm: away")
