"""The registry block with a real docker-registry and a real engine, and with faults between them."""

from __future__ import annotations

import io
import json
import re
import secrets
import socket
import tarfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import docker
import httpx
import pytest
import tenacity
from pydantic import SecretStr, ValidationError

from blocks.registries import oci_client, oci_documents
from blocks.registries.oci import Registry
from headway.domain.errors import RegistryError
from tests.standins.docker_engine import Engine
from tests.standins.registries import PASSWORD, USER, Answer, front, image, serving, summed

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("docker")]

PAYLOAD = secrets.token_bytes(1_000_000)  # does not get smaller
DOCKERFILE = b'FROM scratch\nCOPY payload /bin/payload\nCOPY note /note\nCMD ["/bin/payload", "true"]\n'
SHOP = "team/shop"
SBOM = "application/vnd.cyclonedx+json"
NOBODY = "sha256:" + "0" * 64
TOKEN = "tok-5e7d0c9a42"
BUSY: Answer = (429, {"Retry-After": "1"}, b"")
ILL: Answer = (503, {}, b"upstream is away")

Meddle = Callable[[str, str], Answer | str | None]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oci_client, "RETRIES", replace(oci_client.RETRIES, backoff=tenacity.wait_fixed(0.05)))


@pytest.fixture
def host(tmp_path: Path) -> Iterator[str]:
    with serving(tmp_path / "open") as made:
        yield made


@pytest.fixture
def closed(tmp_path: Path) -> Iterator[str]:
    """A registry that requires a password."""
    with serving(tmp_path / "closed", login=True) as made:
        yield made


class Shop:
    """An image that exists on this engine only."""

    def __init__(self, engine: docker.DockerClient) -> None:
        self.engine = engine
        self.said: list[str] = []
        self.names: set[str] = set()
        self.image = self.build(secrets.token_bytes(16))

    def build(self, note: bytes) -> str:
        context = io.BytesIO()
        with tarfile.open(fileobj=context, mode="w") as tar:
            for name, content in {"Dockerfile": DOCKERFILE, "payload": PAYLOAD, "note": note}.items():
                entry = tarfile.TarInfo(name)
                entry.size, entry.mode = len(content), 0o755
                tar.addfile(entry, io.BytesIO(content))
        context.seek(0)
        name = f"headway-test/registry-{secrets.token_hex(4)}"
        self.names.add(name)
        built, _ = self.engine.images.build(fileobj=context, custom_context=True, tag=name, rm=True)
        return str(built.id)

    def push(self, to: Registry, *tags: str) -> str:
        wanted = tags or ("main",)
        self.names |= {f"{to.host}/{SHOP}:{tag}" for tag in wanted}
        return to.push(self.engine, self.image, SHOP, wanted, self.said.append)


@pytest.fixture
def shop(engine: Engine) -> Iterator[Shop]:
    client = engine.client
    made = Shop(client)
    yield made
    there = {tag for image in client.images.list() for tag in image.tags}
    for name in made.names:
        for tag in there & {name, f"{name}:latest"}:
            client.api.remove_image(tag)


def registry(host: str, **fields: object) -> Registry:
    return Registry.model_validate({"host": host, "plain_http": True, "timeout": 5, "tries": 3, **fields})


def known(host: str) -> Registry:
    return registry(host, username=USER, password=SecretStr(PASSWORD))


class Trouble:
    """Gives this response to the first requests of a kind; records the time of each, and every request."""

    def __init__(self, method: str, path: str, times: int, answer: Answer | str) -> None:
        self.method, self.path, self.times, self.answer = method, re.compile(path), times, answer
        self.at: list[float] = []
        self.all: list[str] = []
        self._one = threading.Lock()

    def __call__(self, method: str, path: str) -> Answer | str | None:
        with self._one:
            self.all.append(f"{method} {path}")
            if method != self.method or not self.path.search(path):
                return None
            self.at.append(time.monotonic())
            if len(self.at) > self.times:
                return None
        if self.answer == "hang up":
            raise ConnectionAbortedError  # ends the connection, before there is an answer
        return self.answer


def put(host: str, content: bytes) -> tuple[str, str]:
    return image(host, SHOP, content)


def put_index(host: str, *digests: str) -> str:
    listed = [{"mediaType": oci_documents.MANIFEST, "digest": one, "size": 1} for one in digests]
    index = {"schemaVersion": 2, "mediaType": oci_documents.INDEX, "manifests": listed}
    url = f"http://{host}/v2/{SHOP}/manifests/all"
    answer = httpx.put(url, content=json.dumps(index), headers={"Content-Type": oci_documents.INDEX}, trust_env=False)
    answer.raise_for_status()
    return str(answer.headers["docker-content-digest"])


def data(place: Path, digest: str) -> Path:
    found = list(place.rglob(f"blobs/sha256/*/{digest.partition(':')[2]}/data"))
    assert len(found) == 1
    return found[0]


# --- pushing -------------------------------------------------------------------------------------------------------


def test_push_returns_the_digest_of_the_registry(shop: Shop, host: str) -> None:
    ours = registry(host)
    digest = shop.push(ours, "one", "two")
    url = f"http://{host}/v2/{SHOP}/manifests/one"
    assert httpx.head(url, headers=oci_documents.ACCEPT, trust_env=False).headers["docker-content-digest"] == digest
    assert ours.digest(SHOP, "one") == ours.digest(SHOP, "two") == ours.digest(f"{host}/{SHOP}", digest) == digest
    assert ours.exists(SHOP, digest)


def test_second_push_of_an_image_uploads_nothing(shop: Shop, host: str) -> None:
    with front(host, heard := Trouble("PATCH", "blobs/uploads", 0, "")) as before:
        first = shop.push(registry(before))
        sent = len(heard.at)
        assert sent > 0
        assert shop.push(registry(before)) == first
        assert len(heard.at) == sent


def test_retried_push_skips_uploaded_layers(shop: Shop, host: str) -> None:
    trouble = Trouble("PUT", "/manifests/", 1, "break")
    with front(host, trouble) as before:
        digest = shop.push(registry(before))
        assert registry(before).exists(SHOP, digest)
    assert len(trouble.at) == 2
    died = next(at for at, one in enumerate(trouble.all) if one.startswith("PUT") and "/manifests/" in one)
    assert not [one for one in trouble.all[died:] if one.startswith(("PATCH", "POST"))]
    assert [line for line in shop.said if "EOF; try 2 of 3" in line]


def test_interrupted_layer_upload_is_completed(shop: Shop, host: str) -> None:
    trouble = Trouble("PATCH", "blobs/uploads", 1, "break")
    with front(host, trouble) as before:
        assert registry(before).exists(SHOP, shop.push(registry(before)))
    assert len(trouble.at) > 1


def test_retry_after_of_a_busy_registry_is_obeyed(shop: Shop, host: str) -> None:
    at: list[float] = []

    def busy(method: str, path: str) -> Answer | None:
        """Busy for requests of the tag: two from the engine, two from Headway."""
        if "/manifests/" not in path or len(at) >= 2:
            return None
        at.append(time.monotonic())
        return BUSY

    with front(host, busy) as before:
        shop.push(registry(before))
    assert [line for line in shop.said if re.search(r"try 2 of 3 in 1\.[01] s", line)]


def test_attempts_of_a_push_are_limited(shop: Shop, host: str) -> None:
    trouble = Trouble("PUT", "/manifests/", 1000, ILL)
    with front(host, trouble) as before, pytest.raises(RegistryError, match=r"503.*\(tried 3 times\)"):
        shop.push(registry(before))
    assert len(trouble.at) == 3


def test_push_times_out(shop: Shop, host: str) -> None:
    with pytest.raises(RegistryError, match="no end of the push") as raised:
        shop.push(registry(host, push_timeout=0.001))
    assert "push_timeout" in raised.value.hint
    trouble = Trouble("PUT", "/manifests/", 1000, ILL)
    with front(host, trouble) as before, pytest.raises(RegistryError, match=r"503.*tried|no end of the push"):
        shop.push(registry(before, push_timeout=4.0, tries=20), "again")
    assert 1 <= len(trouble.at) < 20


def test_denied_push_is_not_retried(shop: Shop, host: str) -> None:
    said = json.dumps({"errors": [{"code": "DENIED", "message": "not for you"}]}).encode()
    trouble = Trouble("PUT", "/manifests/", 1000, (403, {"Content-Type": "application/json"}, said))
    with front(host, trouble) as before, pytest.raises(RegistryError, match="denied: not for you") as raised:
        shop.push(registry(before))
    assert len(trouble.at) == 1
    assert "user and password" in raised.value.hint


def test_image_missing_on_the_engine_is_an_error(shop: Shop, host: str) -> None:
    shop.image = NOBODY
    with pytest.raises(RegistryError, match=f"{NOBODY} is not on the engine"):
        shop.push(registry(host))


def test_a_push_needs_a_tag(shop: Shop, host: str) -> None:
    with pytest.raises(RegistryError, match="without a tag"):
        registry(host).push(shop.engine, shop.image, SHOP, [], shop.said.append)


def test_push_over_plain_http_needs_permission(shop: Shop, host: str) -> None:
    with pytest.raises(RegistryError) as raised:
        shop.push(registry(host, plain_http=False))  # the engine itself would
    assert "plain_http" in raised.value.hint
    assert registry(host).digest(SHOP, "main") is None


# --- who may -------------------------------------------------------------------------------------------------------


def test_correct_password_is_accepted(shop: Shop, closed: str) -> None:
    assert known(closed).exists(SHOP, shop.push(known(closed)))
    assert PASSWORD not in "".join(shop.said)


@pytest.mark.parametrize("login", [{}, {"username": USER, "password": SecretStr("wrong-password")}], ids=["no", "bad"])
def test_wrong_password_is_an_error_at_once(shop: Shop, closed: str, login: dict[str, object]) -> None:
    asks: list[Callable[[Registry], object]] = [
        shop.push,
        lambda ours: ours.digest(SHOP, "main"),
        lambda ours: ours.exists(SHOP, NOBODY),
    ]
    for ask in asks:
        with front(closed, trouble := Trouble("GET", "", 0, "")) as before, pytest.raises(RegistryError) as raised:
            ask(registry(before, **login))
        assert "401" in raised.value.what
        assert "password" in raised.value.hint
        assert len(trouble.all) <= 2  # asked, and asked with the password
        assert "wrong-password" not in "".join(traceback.format_exception(raised.value))


def guarded(said: Callable[[], Answer], asked: list[str], realm: Callable[[], str]) -> Meddle:
    """A registry whose token server gives this response, and that accepts its token."""

    def meddle(_method: str, path: str) -> Answer | None:
        if path.startswith("/token"):
            asked.append(path)
            return said()
        scope = f"repository:{SHOP}:pull,push"
        challenge = f'Bearer realm="{realm()}",service="reg.example.com",scope="{scope}"'
        return None if asked and said()[0] == httpx.codes.OK else (401, {"WWW-Authenticate": challenge}, b"")

    return meddle


@pytest.mark.parametrize("key", ["token", "access_token"])
def test_token_is_fetched_from_the_server_in_the_challenge(host: str, key: str) -> None:
    digest, _ = put(host, b"one")
    asked: list[str] = []
    meddle = guarded(lambda: (200, {}, json.dumps({key: TOKEN}).encode()), asked, lambda: f"http://{before}/token?a=b")
    with front(host, meddle) as before:
        assert known(before).exists(SHOP, digest)
    (url,) = map(httpx.URL, asked)  # once for all requests
    assert dict(url.params) == {"a": "b", "service": "reg.example.com", "scope": f"repository:{SHOP}:pull,push"}


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ((401, {}, b"no"), "answers 401"),
        ((200, {}, b"<html>"), "gives no token"),
        ((200, {}, b"[]"), "gives no token"),
        ((200, {}, b"{}"), "gives no token"),
        ((404, {}, b""), "gives no token"),
        ((503, {}, b""), "answers 503"),
    ],
)
def test_token_server_without_a_token_is_an_error(host: str, said: Answer, words: str) -> None:
    meddle = guarded(lambda: said, [], lambda: f"http://{before}/token")
    with front(host, meddle) as before, pytest.raises(RegistryError, match=words):
        known(before).digest(SHOP, "main")


def test_password_is_not_sent_to_another_host(host: str) -> None:
    heard: list[str] = []

    def elsewhere(method: str, path: str) -> Answer:
        heard.append(path)
        return 401, {"WWW-Authenticate": 'Basic realm="give it to me"'}, b""

    with front(host, elsewhere) as thief:
        leads: Answer = (307, {"Location": f"http://{thief}/blob"}, b"")
        with front(host, lambda _method, _path: leads) as before, pytest.raises(RegistryError, match="401"):
            known(before).digest(SHOP, "main")
    assert heard == ["/blob"]  # not asked again with the password


# --- what is there -------------------------------------------------------------------------------------------------


def test_missing_image_has_no_digest(host: str) -> None:
    ours = registry(host)
    assert ours.digest("nobody/nothing", "main") is None
    assert ours.digest(SHOP, NOBODY) is None
    assert not ours.exists(SHOP, NOBODY)
    assert ours.referrers(SHOP, NOBODY) == []


def test_digest_is_computed_if_the_registry_sends_none(host: str) -> None:
    digest, _ = put(host, b"one")
    url = f"http://{host}/v2/{SHOP}/manifests/main"
    manifest = httpx.get(url, headers=oci_documents.ACCEPT, trust_env=False).content
    bare: Answer = (200, {"Content-Type": oci_documents.MANIFEST}, manifest)
    with front(host, lambda _method, _path: bare) as before:
        assert registry(before).digest(SHOP, "main") == digest


@pytest.mark.parametrize(
    "bare", [(200, {}, b"<html>"), (200, {}, b"[]"), (200, {"Docker-Content-Digest": "sha256:1"}, b"{}")]
)
def test_server_that_is_not_a_registry_has_no_digest(host: str, bare: Answer) -> None:
    with front(host, lambda _method, _path: bare) as before, pytest.raises(RegistryError, match="not as a registry"):
        registry(before).digest(SHOP, "main")


def lose(file: Path) -> None:
    file.unlink()


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


@pytest.mark.parametrize("spoil", [lose, cut])
def test_image_with_a_missing_blob_does_not_exist(host: str, tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    digest, layer = put(host, b"one")
    other, _ = put(host, b"two")
    both = put_index(host, digest, other)
    ours = registry(host)
    assert ours.exists(SHOP, digest)
    assert ours.exists(SHOP, both)
    spoil(data(tmp_path, layer))
    assert not ours.exists(SHOP, digest)
    assert not ours.exists(SHOP, both)
    assert ours.exists(SHOP, other)


def test_manifest_with_another_digest_does_not_exist(host: str) -> None:
    digest, _ = put(host, b"one")
    put(host, b"two")
    url = f"http://{host}/v2/{SHOP}/manifests/main"
    wrong: Answer = (200, {}, httpx.get(url, headers=oci_documents.ACCEPT, trust_env=False).content)
    with front(host, lambda method, path: wrong if digest in path else None) as before:
        assert not registry(before).exists(SHOP, digest)


# --- trouble -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [BUSY, ILL, "hang up"], ids=["429", "503", "broken off"])
def test_transient_errors_are_retried_up_to_a_limit(host: str, answer: Answer | str) -> None:
    digest, _ = put(host, b"one")
    trouble = Trouble("HEAD", "/manifests/", 2, answer)
    with front(host, trouble) as before:
        assert registry(before).digest(SHOP, "main") == digest
    assert len(trouble.at) == 3
    if answer is BUSY:
        assert min(later - at for at, later in zip(trouble.at, trouble.at[1:], strict=False)) >= 1
    trouble = Trouble("HEAD", "/manifests/", 1000, answer)
    with front(host, trouble) as before, pytest.raises(RegistryError, match=r"\(tried 3 times\)"):
        registry(before).digest(SHOP, "main")
    assert len(trouble.at) == 3


@pytest.mark.parametrize("after", ["3600", "Fri, 31 Dec 2199 23:59:59 GMT"])
def test_long_retry_after_is_an_error_at_once(host: str, after: str) -> None:
    trouble = Trouble("HEAD", "/manifests/", 1000, (429, {"Retry-After": after}, b""))
    with front(host, trouble) as before, pytest.raises(RegistryError, match="answers 429, and asks for a pause of"):
        registry(before).digest(SHOP, "main")
    assert len(trouble.at) == 1


def test_unreachable_registry_is_named(host: str) -> None:
    with pytest.raises(RegistryError, match=r"registry 127\.0\.0\.1:1: team/shop: .*refused \(tried 3 times\)"):
        registry("127.0.0.1:1").digest(SHOP, "main")


def test_hanging_registry_times_out(host: str) -> None:
    over = threading.Event()
    with front(host, lambda _method, _path: "break" if over.wait(60) else None) as before:
        try:  # were it waited for, the registry would answer, and nothing would be raised
            with pytest.raises(RegistryError, match=r"no answer within 0\.3 s"):
                registry(before, timeout=0.3).digest(SHOP, "main")
        finally:
            over.set()


def test_slow_response_times_out() -> None:
    over = threading.Event()

    def drip(listening: socket.socket) -> None:
        with suppress(OSError), listening.accept()[0] as connection:
            connection.sendall(b"HTTP/1.1 404 Not Found\r\n")
            while not over.wait(0.1):
                connection.sendall(b"X-Wait: a little\r\n")
            connection.sendall(b"Content-Length: 0\r\n\r\n")  # too late for who keeps to a time

    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(60)
        thread = threading.Thread(target=drip, args=(listening,))
        thread.start()
        late = threading.Timer(60, over.set)
        late.start()
        with pytest.raises(RegistryError, match=r"no answer within 0\.3 s"):
            registry(f"127.0.0.1:{listening.getsockname()[1]}", timeout=0.3).digest(SHOP, "main")
        late.cancel()
        over.set()
        thread.join()


def test_plain_http_is_refused_by_default(host: str) -> None:
    with pytest.raises(RegistryError) as raised:
        Registry(host=host, timeout=2).digest(SHOP, "main")
    assert "plain_http" in raised.value.hint


def test_local_registry_bypasses_the_proxy(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert registry(host).digest(SHOP, "main") is None


# --- statements about images ---------------------------------------------------------------------------------------


def test_attestations_are_stored_as_referrers(host: str) -> None:
    digest, _ = put(host, b"one")
    ours = registry(host)
    assert ours.referrers(SHOP, digest) == []
    sbom = ours.attach(SHOP, digest, SBOM, b'{"a": 1}', SBOM)
    origin = ours.attach(SHOP, digest, "application/vnd.in-toto+json", b'{"b": 2}', "application/vnd.in-toto+json")
    assert ours.attach(SHOP, digest, SBOM, b'{"a": 1}', SBOM) == sbom
    found = ours.referrers(SHOP, digest)
    assert [(one.digest, one.artifact_type) for one in found] == [
        (sbom, SBOM),
        (origin, "application/vnd.in-toto+json"),
    ]
    assert ours.attached(SHOP, sbom) == b'{"a": 1}'
    assert ours.exists(SHOP, sbom)
    tag = digest.replace(":", "-")
    url = f"http://{host}/v2/{SHOP}/manifests/"
    listed = httpx.get(url + tag, headers=oci_documents.ACCEPT, trust_env=False).json()
    assert [one["digest"] for one in listed["manifests"]] == [sbom, origin]
    statement = httpx.get(url + sbom, headers=oci_documents.ACCEPT, trust_env=False).json()
    assert statement["subject"]["digest"] == digest
    assert statement["artifactType"] == SBOM


def test_concurrent_attestations_are_all_kept(host: str) -> None:
    digest, _ = put(host, b"one")
    ours = registry(host)
    threads = [
        threading.Thread(target=ours.attach, args=(SHOP, digest, SBOM, f"{number}".encode(), SBOM))
        for number in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ours.referrers(SHOP, digest)) == 6


def test_registry_with_the_referrers_api_needs_no_tag(host: str) -> None:
    digest, _ = put(host, b"one")
    one = {"mediaType": oci_documents.MANIFEST, "digest": NOBODY, "size": 7, "artifactType": SBOM}
    page = json.dumps({"schemaVersion": 2, "mediaType": oci_documents.INDEX, "manifests": [one]}).encode()

    def modern(method: str, path: str) -> Answer | None:
        if "/referrers/" in path:
            more = {} if "page=2" in path else {"Link": f'</v2/{SHOP}/referrers/{digest}?page=2>; rel="next"'}
            return 200, {"Content-Type": oci_documents.INDEX, **more}, page
        return (201, {"OCI-Subject": digest}, b"") if method == "PUT" and "/manifests/" in path else None

    with front(host, modern) as before:
        registry(before).attach(SHOP, digest, SBOM, b"{}", SBOM)
        assert [one.artifact_type for one in registry(before).referrers(SHOP, digest)] == [SBOM, SBOM]
    assert registry(host).digest(SHOP, digest.replace(":", "-")) is None


def test_interrupted_attestation_upload_is_retried(host: str) -> None:
    digest, _ = put(host, b"one")
    trouble = Trouble("PUT", "blobs/uploads", 1, "break")
    with front(host, trouble) as before:
        statement = registry(before).attach(SHOP, digest, SBOM, b"x" * 1_000_000, SBOM)
    assert len(trouble.at) == 2
    assert registry(host).attached(SHOP, statement) == b"x" * 1_000_000


def test_attestation_of_a_missing_image_is_an_error(host: str) -> None:
    put(host, b"one")
    with pytest.raises(RegistryError, match=f"there is no {NOBODY}"):
        registry(host).attach(SHOP, NOBODY, SBOM, b"{}", SBOM)
    with pytest.raises(RegistryError, match="no statement"):
        registry(host).attached(SHOP, NOBODY)


def test_damaged_attestation_is_not_read(host: str, tmp_path: Path) -> None:
    digest, _ = put(host, b"one")
    statement = registry(host).attach(SHOP, digest, SBOM, b'{"a": 1}', SBOM)
    data(tmp_path, summed(b'{"a": 1}')).write_bytes(b'{"a": 2}')
    with pytest.raises(RegistryError, match="not what its digest says"):
        registry(host).attached(SHOP, statement)


# --- what can be said ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", ["https://ghcr.io", "ghcr.io/team", "me:hunter2@ghcr.io", "ghcr.io:x", "a b", ""])
def test_invalid_host_is_refused(wrong: str) -> None:
    with pytest.raises(ValidationError, match="host") as refused:
        Registry(host=wrong)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("half", [{"username": USER}, {"password": SecretStr(PASSWORD)}])
def test_user_without_password_is_refused(half: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="needs a password") as refused:
        registry("ghcr.io", **half)
    assert PASSWORD not in str(refused.value)


def test_empty_form_fields_mean_anonymous() -> None:
    made = registry("ghcr.io", username=" ", password=SecretStr(""))
    assert (made.username, made.password) == (None, None)


@pytest.mark.parametrize("wrong", ["Team/Shop", "../shop", "shop:main", "other.example.com:5000/shop", "a\nb", ""])
def test_invalid_repository_name_is_refused(wrong: str) -> None:
    with pytest.raises(RegistryError, match="no name of a repository") as refused:
        registry("ghcr.io").digest(wrong, "main")
    assert refused.value.what.isprintable()


@pytest.mark.parametrize("wrong", ["../main", "", "sha256:12", "a b", "x" * 129])
def test_invalid_reference_is_refused(wrong: str) -> None:
    with pytest.raises(RegistryError, match="neither a tag nor a digest"):
        registry("ghcr.io").digest(SHOP, wrong)
    with pytest.raises(RegistryError, match="not a digest"):
        registry("ghcr.io").exists(SHOP, wrong)


@pytest.mark.parametrize("name", ["docker.io", "index.docker.io", "registry-1.docker.io"])
@pytest.mark.parametrize(("repository", "path"), [("nginx", "library/nginx"), ("team/shop", "team/shop")])
def test_docker_hub_names_are_normalized(name: str, repository: str, path: str) -> None:
    ours = Registry(host=name)
    assert ours.host == "docker.io"
    with ours._about(f"docker.io/{repository}") as conversation:
        assert str(conversation._base.join(conversation._path("x"))) == f"https://registry-1.docker.io/v2/{path}/x"


def test_password_is_secret_in_prefect_and_in_repr() -> None:
    block = known("ghcr.io")
    assert Registry.model_json_schema()["secret_fields"] == ["password"]
    assert PASSWORD not in f"{block} {block!r} {block.model_dump()} {block.model_dump_json()}"


def test_password_repeated_by_the_server_is_not_in_errors(host: str) -> None:
    said = json.dumps({"errors": [{"code": "NO", "message": f"{PASSWORD}\nis wrong"}]}).encode()
    with front(host, lambda _method, _path: (418, {}, said)) as before, pytest.raises(RegistryError) as raised:
        known(before).referrers(SHOP, NOBODY)
    assert PASSWORD not in "".join(traceback.format_exception(raised.value))
    assert raised.value.what.isprintable()


def test_redirect_from_https_to_http_is_refused() -> None:
    login: dict[str, object] = {"username": USER, "password": SecretStr(PASSWORD)}
    ours = registry("ghcr.io", plain_http=False, **login)
    with ours._about(SHOP) as conversation, pytest.raises(RegistryError, match="which is plain http"):
        conversation._http.attempt("GET", "http://127.0.0.1:1/token")
