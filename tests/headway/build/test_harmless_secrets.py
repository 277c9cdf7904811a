"""What has the form of a secret: real-looking keys are found wherever they are, what gives access to nothing is not.

Keys are written in two parts: the files of this repository are scanned as well.
"""

from __future__ import annotations

import base64
import os
import secrets
import string
from collections.abc import Callable
from pathlib import Path

import pytest

from headway.build.secret_scan import find_secrets
from tests.standins.repositories import Repository

BASE62 = string.ascii_letters + string.digits


def drawn(length: int, alphabet: str = BASE62) -> str:
    """Random, without anything that looks like a placeholder."""
    return "".join(secrets.choice(alphabet) for _ in range(length))


def key_body() -> str:
    return "\n".join(drawn(64, BASE62 + "+/") for _ in range(12))


def encoded(document: str) -> str:
    return base64.urlsafe_b64encode(document.encode()).decode().rstrip("=")


HEADER, CLAIMS = '{"alg":"HS256","typ":"JWT"}', '{"sub":"service-7","role":"admin"}'
DIGITS, HEX = string.digits, "abcdef0123456789"
HOOK = "https://hooks.slack" + ".com/services/"
RSA, OPENSSH = ("-----BEGIN " + kind + " PRIVATE KEY-----" for kind in ("RSA", "OPENSSH"))
PLANTED: list[tuple[str, str, Callable[[], str]]] = [
    ("AWS Access Key", "deploy/aws.py", lambda: "KEY = 'AK" + f"IA{drawn(16, string.ascii_uppercase)}'"),
    ("AWS Access Key", "config/s3.yml", lambda: 'aws_secret_key: "' + f'{drawn(40)}"'),
    ("GitHub Token", ".github/workflows/ci.yml", lambda: "    token: gh" + f"p_{drawn(36)}"),
    ("GitHub Token", "tests/test_api.py", lambda: "TOKEN = 'gh" + f"o_{drawn(36)}'"),
    ("GitLab Token", "scripts/release.sh", lambda: "export TOKEN=gl" + f"pat-{drawn(20)}"),
    ("GitLab Token", ".gitlab-ci.yml", lambda: "variables: {T: gl" + f"rt-{drawn(20)}}}"),
    ("Slack Token", "notify.rb", lambda: "token = 'xo" + f"xb-{drawn(12, DIGITS)}-{drawn(24, HEX)}'"),
    ("Slack Token", "src/alert.ts", lambda: f"url = '{HOOK}T{drawn(8)}/B{drawn(8)}/{drawn(24)}'"),
    ("Stripe Access Key", ".env", lambda: "STRIPE_KEY=sk" + f"_live_{drawn(24)}"),
    ("Stripe Access Key", "app/pay.go", lambda: 'const key = "rk' + f'_live_{drawn(24)}"'),
    ("SendGrid API Key", "mail.py", lambda: "KEY = 'S" + f"G.{drawn(22)}.{drawn(43)}'"),
    ("SendGrid API Key", "fixtures/mail.json", lambda: '{"key": "S' + f'G.{drawn(22)}.{drawn(43)}"}}'),
    ("Twilio API Key", "sms.php", lambda: "$sid = 'A" + f"C{drawn(32, HEX)}';"),
    ("Twilio API Key", "sms/client.js", lambda: "key: 'S" + f"K{drawn(32, HEX)}',"),
    ("Private Key", "deploy/id_ed25519", lambda: f"{OPENSSH}\n{key_body()}\n"),
    ("Private Key", "config/jwt.json", lambda: f'{{"pem": "{RSA}\\n{drawn(64)}\\n"}}'),
    ("Basic Auth Credentials", "settings.py", lambda: f"URL = 'postgres://app:{drawn(16)}@" + "db.acme-shops.com/app'"),
    ("Basic Auth Credentials", "config/redis.yml", lambda: f"url: rediss://app:{drawn(16)}@" + "cache.acme-shops.net"),
    ("JSON Web Token", "lib/client.py", lambda: f"T = '{encoded(HEADER)}.{encoded(CLAIMS)}.{drawn(43)}'"),
    ("NPM tokens", ".npmrc", lambda: "//registry.npmjs.org/:_auth" + f"Token=npm_{drawn(36)}"),
]


@pytest.mark.parametrize(("kind", "file", "line"), PLANTED, ids=[f"{kind} in {file}" for kind, file, _ in PLANTED])
def test_real_looking_keys_are_found(tmp_path: Path, kind: str, file: str, line: Callable[[], str]) -> None:
    repository = Repository(tmp_path / "repo")
    path = repository.path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"\n{line()}\n")
    repository.commit("one")
    assert [str(one) for one in find_secrets(repository.path)] == [f"{file}:2: {kind}"]


MARK = "-----BEGIN RSA " + "PRIVATE KEY-----"
HARMLESS = [
    ("alembic.ini", "sqlalchemy.url = driver://user:" + "pass@localhost/dbname"),
    ("compose.yml", "DATABASE_URL: postgres:" + "//postgres:postgres@127.0.0.1:5432/app"),
    ("compose.yml", "DATABASE_URL: postgres:" + "//app:Xk3mWq9z@db/app"),
    ("compose.yml", "DATABASE_URL: postgres:" + "//app:app@db.acme-shops.com/app"),
    ("config.py", "URL = 'redis:" + "//user:hunter22@10.0.0.5:6379'"),
    ("config.py", "URL = 'redis:" + "//user:hunter22@[::1]:6379'"),
    ("config.py", "URL = f'https:" + "//bot:{token}@git.acme-shops.com/'"),
    ("config.py", "URL = 'https:" + "//bot:hunter22@%s/' % host"),
    ("chart/values.yaml", "url: postgres:" + "//app:hunter22@postgres.shop.svc.cluster.local/app"),
    ("README.md", "postgres:" + "//user:your-secure-password@db.acme-shops.com/app"),
    ("README.md", "https:" + "//ann:s3cr3t-word@git.example.com/"),
    (".env.example", "DATABASE_URL=postgres:" + "//app:hunter22@db.acme-shops.com/app"),
    ("config.cfg.template", "url = postgres:" + "//app:hunter22@db.acme-shops.com/app"),
    ("tests/settings.py", f"KEY = '''{MARK}\n{'MIIEowIBAAKCAQEAu1SU1LfVLPHCozMxH2Mo4lgOEePzNm0t' * 2}\n'''"),
    ("src/test/resources/key.pem", f"{MARK}\n{'MIIEowIBAAKCAQEAu1SU1LfVLPHCozMxH2Mo4lgOEePzNm0t' * 2}\n"),
    ("form.vue", f'<textarea placeholder="{MARK}\\n...\\n">'),
    ("check.ts", f'if (value.startsWith("{MARK}")) return parseThePrivateKeyOfTheServiceAccountOfTheUser(value)'),
    ("docs/s3.md", "AWS_ACCESS_KEY_ID=AK" + "IAIOSFODNN7EXAMPLE"),
    ("docs/api.go", '`json:"token" example:"ey' + 'JhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbm4ifQ.c2lnbmF0dXJl"`'),
    ("form.html", '<input placeholder="https://hooks.slack' + '.com/services/T0123ABCD/B0123ABCD/aB3dE5fG7hI9">'),
    ("form.html", "https://hooks.slack" + ".com/services/T00000000/B00000000/XXXXXXXXXXXXXXXXXXXXXXXX"),
    ("image.mjs", "const image = 'AAQDZ3k2AS" + "IAQWERTYUIOPASDFGHabc'"),
    ("id_rsa", "nothing"),
    ("server.pem", "-----BEGIN CERTIFICATE-----"),
    (".env", "LOG_LEVEL=info"),
    ("credentials.json", "{}"),
]


@pytest.mark.parametrize(("file", "line"), HARMLESS)
def test_what_gives_access_to_nothing_is_not_reported(tmp_path: Path, file: str, line: str) -> None:
    repository = Repository(tmp_path / "repo")
    path = repository.path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{line}\n")
    repository.commit("one")
    assert find_secrets(repository.path) == []


def test_one_real_address_among_local_ones_counts(tmp_path: Path) -> None:
    repository = Repository(tmp_path / "repo")
    urls = ["postgres:" + f"//app:hunter22@{host}/app\n" for host in ("localhost", "db.acme-shops.com")]
    repository.commit(a_dot_py="".join(urls))
    assert find_secrets(repository.path)


def test_files_in_latin_1_are_scanned(tmp_path: Path) -> None:
    repository = Repository(tmp_path / "repo")
    (repository.path / "caf\u00e9.py").write_bytes(
        "# na\u00efve\nTOKEN = 'gh".encode("latin-1") + f"p_{drawn(36)}'\n".encode()
    )
    repository.commit("one")
    assert [str(one) for one in find_secrets(repository.path)] == ["caf\u00e9.py:2: GitHub Token"]


def test_file_names_that_are_not_utf_8_are_read_and_shown(tmp_path: Path) -> None:
    repository = Repository(tmp_path / "repo")
    Path(os.fsdecode(bytes(repository.path) + b"/bad\xff.bin")).write_text("TOKEN = 'gh" + f"p_{drawn(36)}'\n")
    repository.commit("one")
    (found,) = find_secrets(repository.path)
    assert found.file == r"bad\xff.bin"
    assert found.model_dump_json()


def test_a_file_that_the_parser_of_its_format_refuses_is_scanned_by_lines(tmp_path: Path) -> None:
    repository = Repository(tmp_path / "repo")
    repository.commit(a_dot_ini="\n[x]\n  = 1\nkey\n : gh" + f"p_{drawn(36)}\n")
    assert [one.kind for one in find_secrets(repository.path)] == ["GitHub Token"]
