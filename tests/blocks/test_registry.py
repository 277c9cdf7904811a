"""The registry block on a real docker-registry and a real engine, and on what may stand between them."""

from __future__ import annotations

import json
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest
from docker.errors import ImageNotFound
from pydantic import SecretStr, ValidationError

from blocks import registry as module
from blocks.registry import Registry
from headway.errors import RegistryError
from tests.engines import Engine
from tests.registries import PASSWORD, USER, Answer, front, serving

pytestmark = pytest.mark.xdist_group("docker")

TRIES = Registry.model_fields["tries"].default
SBOM, IN_TOTO = "application/vnd.cyclonedx+json", "application/vnd.in-toto+json"


@pytest.fixture
def host(tmp_path: Path) -> Iterator[str]:
    with serving(tmp_path / "registry") as made:
        yield made


@pytest.fixture
def closed(tmp_path: Path) -> Iterator[str]:
    """One that wants a password."""
    with serving(tmp_path / "closed", login=True) as made:
        yield made


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BACKOFF", lambda _: 0.02)


def registry(host: str, **fields: object) -> Registry:
    return Registry.model_validate({"host": host, "plain_http": True, "timeout": 5, **fields})


def push(engine: Engine, to: Registry, tag: str = "main", content: str = "one") -> tuple[str, list[str]]:
    image = engine.image({"app.py": content}).location
    said: list[str] = []
    try:
        return to.push(engine.client, image, f"{to.host}/acme/shop", [tag, "other"], said.append), said
    finally:
        for name in (tag, "other"):
            with suppress(ImageNotFound):
                engine.client.api.remove_image(f"{to.host}/acme/shop:{name}")


def test_what_was_pushed_is_known_by_the_digest_that_the_registry_says(engine: Engine, host: str) -> None:
    ours = registry(host)
    repository = f"{host}/acme/shop"
    digest, said = push(engine, ours)
    asked = httpx.get(
        f"http://{host}/v2/acme/shop/manifests/main", headers={"Accept": module.DOCKER_MANIFEST}, trust_env=False
    )
    assert asked.headers["docker-content-digest"] == digest
    assert any(line.endswith("Pushed") for line in said)
    assert ours.digest(repository, "main") == ours.digest(repository, "other") == digest
    assert ours.digest(repository, "nobody") is None
    assert ours.digest(f"{host}/acme/nothing", "main") is None
    again, said = push(engine, ours)
    assert again == digest
    assert any(line.endswith("Layer already exists") for line in said)
    assert not any(line.endswith("Pushed") for line in said)


def test_all_of_it_has_to_be_there(engine: Engine, host: str, tmp_path: Path) -> None:
    ours = registry(host)
    repository = f"{host}/acme/shop"
    digest, _ = push(engine, ours)
    assert ours.exists(repository, digest)
    assert not ours.exists(repository, "sha256:" + "0" * 64)
    blobs = sorted((tmp_path / "registry").glob("images/docker/registry/v2/blobs/sha256/*/*/data"), key=_size)
    blobs[-1].unlink()  # the largest layer
    assert not ours.exists(repository, digest)


def _size(file: Path) -> int:
    return file.stat().st_size


def test_who_has_the_password_gets_in(engine: Engine, closed: str) -> None:
    ours = registry(closed, username=USER, password=SecretStr(PASSWORD))
    digest, _ = push(engine, ours)
    assert ours.exists(f"{closed}/acme/shop", digest)


@pytest.mark.parametrize("password", [None, "wrong-password"])
def test_who_has_not_is_told_what_to_do(engine: Engine, closed: str, password: str | None) -> None:
    fields = {"username": USER, "password": SecretStr(password)} if password else {}
    for verb in (lambda one: push(engine, one), lambda one: one.digest(f"{closed}/acme/shop", "main")):
        with pytest.raises(RegistryError) as raised:
            verb(registry(closed, **fields))
        assert "password" in raised.value.hint
        assert "wrong-password" not in "".join(traceback.format_exception(raised.value))


class Trouble:
    """Answers so many requests of a kind with this, and passes on the others."""

    def __init__(self, method: str, path: str, times: int, answer: Answer | str) -> None:
        self.method, self.path, self.times, self.answer = method, path, times, answer
        self.asked = Counter[bool]()

    def __call__(self, method: str, path: str) -> Answer | str | None:
        meant = method == self.method and self.path in path
        self.asked[meant] += 1
        return self.answer if meant and self.asked[True] <= self.times else None


@contextmanager
def troubled(host: str, trouble: Trouble) -> Iterator[Registry]:
    with front(host, trouble) as before:
        yield registry(before)


BUSY: Answer = (429, {"Retry-After": "0"}, b"")
ILL: Answer = (503, {}, b"upstream is away")


@pytest.mark.parametrize("answer", [BUSY, ILL, "break"], ids=["429", "503", "broken off"])
def test_what_may_pass_is_tried_again(engine: Engine, host: str, answer: Answer | str) -> None:
    digest, _ = push(engine, registry(host))
    trouble = Trouble("HEAD", "manifests/main", TRIES - 1, answer)
    with troubled(host, trouble) as ours:
        assert ours.digest(f"{ours.host}/acme/shop", "main") == digest
    assert trouble.asked[True] == TRIES


@pytest.mark.parametrize("answer", [BUSY, ILL, "break"], ids=["429", "503", "broken off"])
def test_but_not_for_ever(engine: Engine, host: str, answer: Answer | str) -> None:
    trouble = Trouble("HEAD", "manifests/main", 1000, answer)
    with troubled(host, trouble) as ours, pytest.raises(RegistryError, match="tried 5 times"):
        ours.digest(f"{ours.host}/acme/shop", "main")
    assert trouble.asked[True] == TRIES


@pytest.mark.parametrize(
    ("method", "path", "answer", "times"),  # of a layer more often than the engine itself tries
    [
        ("PATCH", "blobs/uploads", "break", 6),
        ("PUT", "blobs/uploads", ILL, 6),
        ("PUT", "manifests", ILL, TRIES - 1),
    ],
    ids=["in the middle of a layer", "at its end", "at the manifest"],
)
def test_a_push_that_breaks_off_goes_on(
    engine: Engine, host: str, method: str, path: str, answer: Answer | str, times: int
) -> None:
    trouble = Trouble(method, path, times, answer)
    with troubled(host, trouble) as ours:
        digest, _ = push(engine, ours, content=f"{method}{path}")
        assert ours.exists(f"{ours.host}/acme/shop", digest)
    assert trouble.asked[True] > times


def test_a_push_that_is_refused_is_not_tried_again(engine: Engine, host: str) -> None:
    refused: Answer = (403, {"Content-Type": "application/json"}, b'{"errors": [{"code": "DENIED", "message": "no"}]}')
    trouble = Trouble("POST", "blobs/uploads", 1000, refused)
    with troubled(host, trouble) as ours, pytest.raises(RegistryError, match=r"(?i)denied"):
        push(engine, ours, content="refused")
    assert trouble.asked[True] <= 6  # a few layers at the same time, each once


def test_a_registry_that_does_not_say_the_digest_is_counted_after(engine: Engine, host: str) -> None:
    digest, _ = push(engine, registry(host))
    manifest = httpx.get(
        f"http://{host}/v2/acme/shop/manifests/main", headers={"Accept": module.DOCKER_MANIFEST}, trust_env=False
    )
    bare: Answer = (200, {"Content-Type": module.DOCKER_MANIFEST}, manifest.content)
    with troubled(host, Trouble("HEAD", "manifests/main", 10, bare)) as ours:
        ours_too = Trouble("GET", "manifests/main", 10, bare)
        with front(host, lambda method, path: bare if "manifests/main" in path else ours_too(method, path)) as before:
            assert registry(before).digest(f"{before}/acme/shop", "main") == digest
        assert ours.timeout == 5


def test_a_token_is_fetched_where_the_registry_says(engine: Engine, host: str) -> None:
    digest, _ = push(engine, registry(host))
    heard: list[str] = []

    def guarded(method: str, path: str) -> Answer | None:
        if path.startswith("/token"):
            heard.append(path)
            return 200, {}, json.dumps({"token": "tok-123"}).encode()
        if not heard:
            challenge = f'Bearer realm="http://{before}/token",service="here",scope="repository:acme/shop:pull"'
            return 401, {"WWW-Authenticate": challenge}, b""
        return None

    with front(host, guarded) as before:
        ours = registry(before, username=USER, password=SecretStr(PASSWORD))
        assert ours.digest(f"{before}/acme/shop", "main") == digest
    assert heard == ["/token?service=here&scope=repository%3Aacme%2Fshop%3Apull"]


def test_documents_are_kept_beside_the_image(engine: Engine, host: str) -> None:
    ours = registry(host)
    repository = f"{host}/acme/shop"
    digest, _ = push(engine, ours)
    assert ours.referrers(repository, digest) == []
    first = ours.attach(repository, digest, SBOM, b'{"a": 1}', SBOM)
    assert ours.attach(repository, digest, SBOM, b'{"a": 1}', SBOM) == first
    ours.attach(repository, digest, IN_TOTO, b'{"b": 2}', IN_TOTO)
    found = ours.referrers(repository, digest)
    assert [(one.artifact_type, ours.attached(repository, one.digest)) for one in found] == [
        (SBOM, b'{"a": 1}'),
        (IN_TOTO, b'{"b": 2}'),
    ]
    with pytest.raises(RegistryError, match="to attach to"):
        ours.attach(repository, "sha256:" + "0" * 64, SBOM, b"{}", SBOM)


def test_a_registry_that_is_not_there_and_one_that_hangs(host: str) -> None:
    with pytest.raises(RegistryError, match="tried 5 times"):
        registry("127.0.0.1:1").digest("127.0.0.1:1/acme/shop", "main")

    def hang(_method: str, _path: str) -> None:
        time.sleep(2)

    with front(host, hang) as before, pytest.raises(RegistryError, match=r"no answer within 0\.2 s"):
        registry(before, timeout=0.2).digest(f"{before}/acme/shop", "main")


def test_plain_http_only_when_said_so(host: str) -> None:
    with pytest.raises(RegistryError) as raised:
        Registry(host=host, timeout=2).digest(f"{host}/acme/shop", "main")
    assert "plain_http" in raised.value.hint


@pytest.mark.parametrize("wrong", ["https://ghcr.io", "ghcr.io/acme", "me:hunter2@ghcr.io", ""])
def test_what_is_no_host_is_refused(wrong: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Registry(host=wrong)
    assert "hunter2" not in str(refused.value)
