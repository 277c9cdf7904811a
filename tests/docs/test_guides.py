"""Every command and every file on the pages of "Guides" works as written.

A guide starts from the app of guides/index.md, released once. A block with the title `headway.yaml` is merged into the
file, as the guides tell the reader; with `app` in it, it is the whole file. Each guide has an app of its own, so all of
them share one `headway up`.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from headway import config
from headway.ledger import Ledger
from tests.docs.conftest import environment
from tests.docs.pages import Block, Sandbox, blocks
from tests.e2e.conftest import Up
from tests.standins.ports import free_port

GUIDES = Path(__file__).parents[2] / "docs" / "guides"
AT_ONCE = 2
OPEN = ("running", "waiting")
DECISION = re.compile(r"^headway (approve|reject|promote|skip|abort) ", re.MULTILINE)
SETTLED = 180.0  # seconds for a release that goes on in the background

# What the releases of a guide's app come to, the oldest first. Those that take long begin together.
FOLLOWED: dict[str, list[str]] = {
    "release-with-a-canary": ["succeeded", "succeeded", "rolled_back"],
    "require-an-approval": ["succeeded", "succeeded", "rejected"],
    "migrate-the-database": ["succeeded", "succeeded"],
    "analyse-a-canary": ["succeeded", "succeeded"],
    "release-blue-green": ["succeeded", "succeeded"],
    "roll-back": ["succeeded", "succeeded"],
    "freeze-releases": ["succeeded", "succeeded"],
    "check-production-readiness": ["succeeded", "succeeded"],
    "verify-what-is-live": ["succeeded", "succeeded"],
    "rehearse-the-rollback": ["succeeded", "succeeded"],
    "report-dependency-health": ["succeeded", "succeeded"],
    "release-every-night": ["succeeded"],
    "release-from-your-own-git-server": ["succeeded"],
    "start-a-release-from-a-program": ["succeeded"],
    "declare-environment-variables": ["succeeded"],
    "give-the-app-its-secrets": ["succeeded"],
    "keep-secrets-out-of-the-repository": [],
    "who-may-do-what": [],
    "sign-in": [],
    "harden": [],
    "set-the-policy-of-an-app": [],
    "sign-in-with-your-identity-provider": [],
}
# Only these depend on the release before the guide begins.
UPDATES = {slug for slug, states in FOLLOWED.items() if len(states) > 1} - {"migrate-the-database"}
# Guides for a platform or a service that this machine may not have: their files are checked, nothing is released.
CHECKED = (
    "autoscale-on-kubernetes",
    "docker",
    "judge-by-a-business-metric",
    "keep-the-ledger-in-postgresql",
    "kubernetes",
    "put-a-proxy-in-front",
    "preview-pull-requests",
    "preview-pull-requests-from-forks",
    "railway",
    "release-on-every-push",
    "release-third-party-software",
    "show-results-at-the-git-host",
    "split-traffic-on-kubernetes",
    "use-your-own-manifests",
    "use-your-own-prefect-server",
    "vercel",
)


# The guide whose files another one starts from.
STARTS = {"use-your-own-manifests": "docker.md"}

# tests/examples/test_third_party_target.py installs its example package and runs the port contract tests on it.
ELSEWHERE = ("write-a-target",)


class Guide(Sandbox):
    """The repository of one guide's app."""

    def __init__(self, slug: str, place: Path, service: Up, replace: Mapping[str, str]) -> None:
        super().__init__(place, environment(service, place), replace)
        self.slug = slug
        self.repository = place / slug
        self.ledger_url = f"sqlite:///{service.home / 'ledger.db'}"

    def start(self, *, release: bool) -> None:
        """The files of guides/index.md, committed, and released once."""
        index = GUIDES / "index.md"
        self._run(Block(index, 0, "sh", f"git init -q -b main {self.repository}; cd {self.repository}"))
        for block in [*blocks(index), *(blocks(GUIDES / STARTS[self.slug]) if self.slug in STARTS else ())]:
            if block.title:
                self._write(block)
        self._run(Block(index, 0, "sh", "git add -A; git commit -qm 'The shop'" + "; headway release" * release))

    def _write(self, block: Block) -> None:
        if block.title != config.FILE_NAME:
            super()._write(block)
            return
        file = self.repository / block.title
        yaml = YAML()
        part = yaml.load(self._replaced(block.text))
        whole = {} if "app" in part else yaml.load(file.read_text())
        _merge(whole, part)
        yaml.dump(whole, file)
        config.load(self.repository)

    def _run(self, block: Block) -> None:
        super()._run(block)
        if DECISION.search(block.text):  # what it lets go on takes some seconds, as it does for a reader
            self.until(lambda states: states[-1] not in OPEN)

    def until(self, fits: Callable[[list[str]], bool]) -> list[str]:
        """The states of the app's releases, the oldest first, once they fit; or when it has taken too long."""
        end = time.monotonic() + SETTLED
        with Ledger.open(self.ledger_url) as ledger:
            while not fits(states := [str(one.state) for one in reversed(ledger.releases.recent(self.slug))]):
                if time.monotonic() > end:
                    break
                time.sleep(0.1)
        return states


def _merge(whole: dict[str, Any], part: Mapping[str, Any]) -> None:
    for key, value in part.items():
        if isinstance(value, Mapping) and isinstance(whole.get(key), dict):
            _merge(whole[key], value)
        else:
            whole[key] = value


@pytest.fixture(scope="module")
def secret_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("secrets")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, secret_files: Path) -> Iterator[Up]:
    """One `headway up` for all guides."""
    up = Up(tmp_path_factory.mktemp("headway"), HEADWAY_SECRETS=str(secret_files))
    with up.running():
        yield up


class Readers:
    """Several guides are followed at once: most of the time a reader waits.

    After each batch what it has released is ended: every app takes memory.
    """

    def __init__(self, service: Up, secret_files: Path, place: Path, slugs: list[str]) -> None:
        self._service = service
        self._secret_files = secret_files
        self._place = place
        self._batches = [slugs[at : at + AT_ONCE] for at in range(0, len(slugs), AT_ONCE)]
        self._followed: dict[str, Future[list[str]]] = {}

    def states(self, slug: str) -> list[str]:
        """Of the releases of a guide's app, when it has been followed. Raises PageError."""
        if slug not in self._followed:
            batch = next(batch for batch in self._batches if slug in batch)
            with ThreadPoolExecutor() as pool:
                self._followed |= {one: pool.submit(self._follow, one) for one in batch}
            self._service.end_targets()
        return self._followed[slug].result()

    def _follow(self, slug: str) -> list[str]:
        place = self._place / slug
        place.mkdir()
        guide = Guide(slug, place, self._service, self._replace(slug, place))
        wanted = FOLLOWED.get(slug, [])
        guide.start(release=slug in UPDATES)
        guide.follow(GUIDES / f"{slug}.md")
        return guide.until(lambda states: states == wanted)

    def _replace(self, slug: str, place: Path) -> dict[str, str]:
        where = json.loads((self._service.home / "up.json").read_text())
        return {
            "http://127.0.0.1:4300": where["web_url"],
            "http://127.0.0.1:4200/api": where["api_url"],
            "/etc/headway/secrets": str(self._secret_files),
            "/srv/git": str(place),
            "/var/lib/shop": str(place),
            **{port: str(free_port()) for port in ("8080", "8081")},
            "SHOP": slug.upper().replace("-", "_"),
            "shop": slug,
        }


@pytest.fixture(scope="module")
def readers(
    request: pytest.FixtureRequest, service: Up, secret_files: Path, tmp_path_factory: pytest.TempPathFactory
) -> Readers:
    wanted = [item.callspec.params.get("slug") for item in request.session.items if hasattr(item, "callspec")]
    slugs = [slug for slug in wanted if slug in (*FOLLOWED, *CHECKED)]
    return Readers(service, secret_files, tmp_path_factory.mktemp("guides"), slugs)


@pytest.mark.e2e
@pytest.mark.parametrize("slug", FOLLOWED)
def test_guide_works_as_written(readers: Readers, slug: str) -> None:
    assert readers.states(slug) == FOLLOWED[slug]


@pytest.mark.e2e
@pytest.mark.parametrize("slug", CHECKED)
def test_guide_is_valid(readers: Readers, slug: str) -> None:
    assert readers.states(slug) == []


def test_every_guide_is_tested_and_on_the_index() -> None:
    pages = sorted(page.stem for page in GUIDES.glob("*.md") if page.stem != "index")
    assert sorted([*FOLLOWED, *CHECKED, *ELSEWHERE]) == pages
    linked = re.findall(r"\]\(([a-z-]+)\.md\)", (GUIDES / "index.md").read_text())
    assert sorted(linked) == pages
