"""The principal of a command line."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

from headway.domain.errors import UsageError
from headway.domain.principal import Principal
from headway.system.os_user import home_owner, os_user

ASK = "from headway.system.os_user import os_user; print(os_user().name)"


def test_the_principal_is_the_user_of_the_process_whatever_its_environment_says(tmp_path: Path) -> None:
    (tmp_path / ".gitconfig").write_text("[user]\n  email = owner@acme\n  name = owner\n")
    forged = {"USER": "owner", "LOGNAME": "owner", "USERNAME": "owner", "HOME": str(tmp_path), "GIT_AUTHOR_NAME": "o"}
    said = subprocess.run(
        [sys.executable, "-c", ASK], env=os.environ | forged, text=True, capture_output=True, timeout=60, check=True
    )
    assert said.stdout.strip() == pwd.getpwuid(os.getuid()).pw_name


def test_the_groups_are_those_of_the_operating_system() -> None:
    principal = os_user()
    assert isinstance(principal, Principal)
    assert principal.kind == "user"
    assert set(principal.groups) == set(subprocess.check_output(["id", "-Gn"], text=True).split())


def test_a_user_id_without_a_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 3_999_999_999)
    with pytest.raises(UsageError, match="the user id 3999999999 has no name here"):
        os_user()


def test_the_owner_of_a_directory(tmp_path: Path) -> None:
    assert home_owner(tmp_path) == os_user().name
