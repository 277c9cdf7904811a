"""Secrets in a repository stop a release. They are reported by location, never by value."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from headway.build.secret_scan import find_secrets
from headway.domain.errors import SourceError, UsageError
from tests.standins.repositories import Repository

AWS = "AKIA" + "QYLPMN5HHHFPZAM2"  # in two parts: this repository is looked at as well
GITHUB = "ghp_" + "a1B2" * 9
KEY = "-----BEGIN RSA " + "PRIVATE KEY-----\nMIIEowIBAAKCAQEAu1SU1LfVLPHCozMxH2Mo4lgOEePzNm0tRgeLezV6ffAt0gun\n"


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "repo")


def found(repository: Repository, *harmless: str) -> list[str]:
    return [str(found) for found in find_secrets(repository.path, harmless)]


def test_a_repository_without_secrets_has_none(repository: Repository) -> None:
    checksum = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
    repository.commit(app_dot_py=f"CHECKSUM = '{checksum}'\npassword = os.environ['PASSWORD']\n", big_dot_txt="x" * 100)
    assert found(repository) == []


def test_secrets_of_known_forms_are_reported_by_line_without_their_value(repository: Repository) -> None:
    repository.commit(config__aws_dot_py=f"# keys\nKEY = '{AWS}'\n", deploy_dot_sh=f"TOKEN={GITHUB}\n", id_rsa=KEY)
    assert found(repository) == [
        "config/aws.py:2: AWS Access Key",
        "deploy.sh:1: GitHub Token",
        "id_rsa:1: Private Key",
    ]
    assert AWS not in str(find_secrets(repository.path))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", f"key:\n{AWS}\n"),
        ("a.txt", f"first\r\n{AWS}"),
        ("a.txt", "at the start of a line\nAKC" + "a1B2c3D4e5F6\n"),
        ("a.txt", "https://ann:" + "s3cr3t-word@git.acme-shops.com/\n"),
        ("a.yaml", f"key: {AWS}\n"),
        ("a.yml", "url: >-\n  https://ann:" + "s3cr3t-word@git.acme-shops.com/\n"),
        ("a.yaml", 'url: "https://ann:\\\n  ' + 's3cr3t-word@git.acme-shops.com/"\n'),
        ("a.ini", f"[aws]\nkey = {AWS}\n"),
    ],
)
def test_prefilter_never_skips_a_file_with_a_secret(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, name: str, content: str
) -> None:
    (repository.path / name).write_text(content)
    repository.commit("one")
    quickly = found(repository)
    monkeypatch.setattr("headway.build.secret_scan._forms", lambda: None)
    assert quickly == found(repository)
    assert len(quickly) == 1


def test_excluded_files_are_not_scanned(repository: Repository) -> None:
    repository.commit(tests__a_dot_py=f"KEY = '{AWS}'\n", b_dot_py=f"KEY = '{AWS}'\n")
    assert found(repository, "tests/") == ["b.py:1: AWS Access Key"]


def test_only_committed_files_are_scanned(repository: Repository) -> None:
    repository.commit(a_dot_txt="nothing")
    repository.write(_dot_env=f"KEY={AWS}\n")
    assert found(repository) == []


def test_allowlisted_secret_is_not_reported(repository: Repository) -> None:
    repository.commit(a_dot_py=f"KEY = '{AWS}'  # pragma: allowlist secret\n")
    assert found(repository) == []


def test_baseline_sets_allowed_findings_and_detectors(repository: Repository) -> None:
    repository.commit(a_dot_py=f"KEY = '{AWS}'\n")
    scan = [str(Path(sys.executable).with_name("detect-secrets")), "scan"]
    baseline = subprocess.run(scan, cwd=repository.path, check=True, capture_output=True, text=True).stdout
    (repository.path / ".secrets.baseline").write_text(baseline)
    repository.commit("baseline")
    assert found(repository) == []
    repository.commit(b_dot_py="api_key = 'c3VwZXItc2VjcmV0'\n")  # the keyword detector is in the baseline
    assert [one.partition(":")[0] for one in found(repository)] == ["b.py"]


@pytest.mark.parametrize("content", ["no json", "{}", json.dumps({"results": {"a": [{}]}})])
def test_invalid_baseline_is_an_error(repository: Repository, content: str) -> None:
    repository.commit(_dot_secrets_dot_baseline=content)
    with pytest.raises(UsageError, match="is not what detect-secrets writes"):
        find_secrets(repository.path)


def test_links_and_large_files_are_not_followed(repository: Repository, tmp_path: Path) -> None:
    (tmp_path / "outside").write_text(AWS)
    (repository.path / "link").symlink_to(tmp_path / "outside")
    repository.commit(large_dot_txt=AWS + "x" * 1024 * 1024)
    assert found(repository) == []


def test_not_a_repository_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="not a git repository"):
        find_secrets(tmp_path)
