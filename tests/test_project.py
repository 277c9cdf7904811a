"""Checks of the repository: import contracts, contents of the wheel, statements in the documents."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import typer
import typer.testing

from headway import config
from headway.cli.main import app

ROOT = Path(__file__).parents[1]
PACKAGES = ("headway", "flows", "tasks", "blocks")
BIN = Path(sys.executable).parent
DOCUMENTS = [ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")] + sorted(
    path for path in (ROOT / "docs").rglob("*.md") if "reference" not in path.parts
)


# --- imports go one way ----------------------------------------------------------------------------------------


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The four packages and their contracts, to break them."""
    for name in PACKAGES:
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def lint_imports(place: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [BIN / "lint-imports", "--no-cache"], cwd=place, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize(
    ("module", "imported", "contract"),
    [
        ("headway/domain/plan.py", "flows.release", "flows -> tasks -> blocks -> headway"),
        ("headway/cli/main.py", "blocks.secrets", "flows -> tasks -> blocks -> headway"),
        ("blocks/secrets.py", "tasks.rollout_steps", "flows -> tasks -> blocks -> headway"),
        ("tasks/rollout_steps.py", "flows.rollback", "flows -> tasks -> blocks -> headway"),
        ("headway/config/settings.py", "headway.ledger", "Rooms of headway go one way"),
        ("headway/rollout/executor.py", "headway.policy.nightly", "Rooms of headway go one way"),
        ("tasks/nightly.py", "headway.service.prefect.client", "Pipelines do not know the service or the command line"),
        ("headway/rollout/executor.py", "prefect", "Only service.prefect imports Prefect"),
        ("blocks/targets/docker/target.py", "blocks.targets.process.target", "Platforms do not know each other"),
    ],
)
def test_import_against_the_contract_is_found(copy: Path, module: str, imported: str, contract: str) -> None:
    with (copy / module).open("a") as source:
        source.write(f"\nimport {imported}\n")

    found = lint_imports(copy)

    assert found.returncode == 1
    assert f"{contract} BROKEN" in found.stdout


def test_imports_go_one_way(copy: Path) -> None:
    found = lint_imports(copy)
    assert found.returncode == 0, found.stdout


# --- the wheel -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built wheel."""
    place = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", place],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=120,
    )
    (built,) = place.glob("*.whl")
    return built


def sources(folder: str) -> set[str]:
    """The files of a package or example that git would take."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", folder],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
        timeout=30,
    ).stdout.split("\0")
    return {name for name in listed if name and (ROOT / name).exists()}


def test_the_wheel_has_one_top_level_package_and_all_the_sources(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}

    inside = {f"headway/project/{name}" for folder in ("flows", "tasks", "blocks") for name in sources(folder)}
    examples = {f"headway/project/{name}" for name in sources("examples")}
    assert names == sources("headway") | inside | examples | {"headway/project/prefect.yaml"}


@pytest.fixture
def installed(wheel: Path) -> Iterator[Path]:
    """Python of an environment that has the wheel and its dependencies, and knows nothing of this checkout.

    In a directory with a short name: Unix sockets have no room for a long one.
    """
    place = Path(tempfile.mkdtemp(prefix="headway-wheel-"))
    try:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", place / "venv"], check=True, timeout=120)
        (packages,) = (place / "venv").glob("lib/python*/site-packages")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(packages)
        # A directory named in a .pth file lends its packages, but its own .pth files, the checkout's, are not read.
        (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
        yield place / "venv" / "bin" / "python"
    finally:
        shutil.rmtree(place)


def test_installed_headway_has_its_prefect_project(installed: Path) -> None:
    script = (
        "from headway.system.project_root import project_root; print(project_root());"
        "import flows.release as f; print(f.__file__)"
    )

    said = subprocess.run(
        [installed, "-c", script], cwd=installed.parent, check=True, capture_output=True, text=True, timeout=120
    ).stdout.splitlines()

    assert said[0].startswith(str(installed.parents[1]))
    assert Path(said[0]).parts[-2:] == ("headway", "project")
    assert said[1] == f"{said[0]}/flows/release.py"


@pytest.mark.e2e
def test_installed_headway_runs_the_demo_and_cleans_up(installed: Path) -> None:
    place = installed.parents[2]
    scratch = place / "tmp"
    scratch.mkdir()
    environment = {**os.environ, "TMPDIR": str(scratch), "COLUMNS": "200", "PATH": f"{BIN}:{os.environ['PATH']}"}

    played = subprocess.run(
        [installed, "-c", "from headway.cli import main; main()", "demo"],
        cwd=place,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )

    assert played.returncode == 0, played.stdout + played.stderr
    results = re.findall(r"^(v\d) [^:\n]+: (\w+)", played.stdout, re.MULTILINE)
    assert results == [("v1", "succeeded"), ("v2", "succeeded"), ("v3", "rolled_back")]
    assert "users saw" not in played.stdout.partition("v2 ")[0], "a request failed while v2 went out"
    assert not list(scratch.glob("headway-demo-*"))
    assert [process.info for process in psutil.process_iter(["cmdline"]) if mentions(process, str(scratch))] == []


def mentions(process: psutil.Process, text: str) -> bool:
    try:
        return text in " ".join(process.cmdline()) or text in " ".join(process.environ().values())
    except psutil.Error:
        return False


# --- the documents ---------------------------------------------------------------------------------------------


def code(document: Path) -> list[str]:
    """Code spans and the lines of code blocks."""
    text = document.read_text()
    fenced = "\n".join(re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    plain = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    indented = re.findall(r"^    (.+)$", plain, re.MULTILINE)
    spans = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", plain)]
    return [*fenced.splitlines(), *indented, *spans]


def invocations(program: str) -> list[tuple[str, str]]:
    """Headway commands in the documents: (document, arguments), without comments."""
    return [
        (str(document.relative_to(ROOT)), arguments.strip())
        for document in DOCUMENTS
        for line in code(document)
        for arguments in re.findall(rf"(?:^|&& |\.venv/bin/){program} ([^&]+)", re.sub(r"\s# .*", "", line))
    ]


def test_the_documents_name_commands_that_exist() -> None:
    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    of_all = {option for parameter in group.params for option in parameter.opts}
    found = invocations("headway")
    assert {"up", "demo", "check", "release", "rollback"} <= {arguments.split()[0] for _, arguments in found}

    for document, arguments in found:
        words = [word for word in arguments.split() if word not in of_all]
        if not words or words[0] == "COMMAND":
            continue
        command: Any = group
        while isinstance(command, typer.core.TyperGroup) and words:
            assert words[0] in command.commands, f"{document}: headway {arguments}"
            command = command.commands[words.pop(0)]
        known = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in words if word.startswith("-")} <= known, f"{document}: headway {arguments}"


def test_the_documents_name_make_targets_that_exist() -> None:
    found = invocations("make")
    assert {("README.md", "demo"), ("README.md", "test")} <= set(found)

    # Set by the make that runs these tests, they would be this one's options.
    environment = {
        name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")
    }
    for document, targets in found:
        asked = subprocess.run(
            ["make", "--dry-run", *targets.split()],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert asked.returncode == 0, f"{document}: make {targets}: {asked.stderr}"


def test_the_documents_name_modules_and_variables_that_exist() -> None:
    for place, arguments in invocations("python -m"):
        assert importlib.util.find_spec(arguments.split()[0]), f"{place}: python -m {arguments}"

    places = (*PACKAGES, "tests")
    programs = "".join(path.read_text() for name in places for path in (ROOT / name).rglob("*.py"))
    for document in DOCUMENTS:
        for variable in re.findall(r"\bHEADWAY_[A-Z_]+", document.read_text()):
            if not variable.startswith("HEADWAY_SECRET_"):  # the rest is the name of a secret
                assert variable in programs, f"{document.name}: {variable}"


def test_links_lead_somewhere() -> None:
    for document in DOCUMENTS:
        for link in re.findall(r"\]\(([^)#]+)", document.read_text()):
            assert "://" in link or (document.parent / link).exists(), f"{document.name}: {link}"


def test_the_settings_of_the_examples_are_good_settings() -> None:
    found = sorted((ROOT / "examples").glob("*/headway.yaml"))
    assert {"pypiserver", "shop", "tiddlywiki"} <= {config.load(file).app for file in found}


def test_the_settings_in_the_readme_are_good_settings(tmp_path: Path) -> None:
    (written,) = re.findall(r"^```yaml\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    (tmp_path / "headway.yaml").write_text(written)

    assert config.load(tmp_path).release_path() == ["staging", "production"]


def test_version_is_that_of_the_package() -> None:
    told = typer.testing.CliRunner().invoke(app, ["--version"])
    assert (told.exit_code, told.output) == (0, f"headway {importlib.metadata.version('headway')}\n")
