"""The changelog: notes and number of the next version."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FRAGMENTS = sorted(path for path in (ROOT / "changelog.d").glob("*.md") if path.name != "README.md")
KINDS = {"added", "changed", "fixed", "security"}


@pytest.mark.parametrize("fragment", FRAGMENTS, ids=lambda path: path.name)
def test_a_fragment_is_one_line_of_a_known_kind(fragment: Path) -> None:
    name, kind = fragment.stem.rsplit(".", 1)
    assert name.startswith("+"), "a fragment without an issue number starts with +"
    assert kind in KINDS
    (line,) = fragment.read_text().splitlines()
    assert line.endswith(".")


def test_every_fragment_is_in_the_notes_of_the_next_version() -> None:
    drafted = subprocess.run(
        [Path(sys.executable).with_name("towncrier"), "build", "--draft", "--version", "9.9.9"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout
    for fragment in FRAGMENTS:
        assert fragment.read_text().strip() in drafted


@pytest.mark.parametrize(
    ("kinds", "bump"),
    [(["fixed"], "patch"), (["security", "fixed"], "patch"), (["fixed", "added"], "minor"), (["changed"], "minor")],
)
def test_the_version_follows_from_the_fragments(tmp_path: Path, kinds: list[str], bump: str) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "changelog.d").mkdir()
    for kind in kinds:
        (tmp_path / "changelog.d" / f"+one.{kind}.md").write_text("One.\n")
    # Set by the make that runs these tests, they would be this one's options.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}

    planned = subprocess.run(
        ["make", "--dry-run", "--assume-old=.venv/ready", "version"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert f"--bump {bump}" in planned.stdout, planned.stdout + planned.stderr
