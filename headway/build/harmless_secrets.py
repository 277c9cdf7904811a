"""What has the form of a secret and is none: placeholders, credentials of local services, test fixtures. Pure."""

from __future__ import annotations

import ipaddress
import re
from pathlib import PurePosixPath
from urllib.parse import unquote

__all__ = ["is_harmless"]

FIXTURES = frozenset(
    {
        *("test", "tests", "testing", "testdata", "spec", "specs", "fixture", "fixtures", "mock", "mocks"),
        *("example", "examples", "sample", "samples", "e2e", "cypress"),
    }
)
EXAMPLE_ENDINGS = frozenset({"example", "sample", "template", "dist"})
WORDS = re.compile("[A-Z]?[a-z]+|[A-Z]+|[0-9]+")
NO_ADDRESS = ("example.com", "example.org", "example.net", "example.edu", "domain.com", "domain.tld")
LOCAL_DOMAINS = ("localhost", "local", "internal", "test", "example", "invalid", "lan", "home.arpa")
TEMPLATE = re.compile(r"[${}<>%*]|\.\.\.")  # part of an address that a program or a person fills in
URL_WITH = r"://(?P<user>[^:/?#@\s]+):{password}@(?P<address>[^\s\"'`<>\\)\]|;]*)"
PLACEHOLDER = re.compile(
    r"example|placeholder|change[-_]?me|replace[-_]?me|your[-_]|dummy|1234567890|(.)\1{5}", re.IGNORECASE
)
PLACEHOLDER_WORDS = re.compile(
    "pass(word|wd|phrase)?|pw|pwd|secret|key|token|credentials?|your|my|the|some|a|super|very|strong|secure|safe|"
    "database|db|user|name|here|change|me|replace|with|random|string|example|placeholder|dummy|access|word|"
    "guest|root|admin|test|invalid|postgres|mysql|x+"
)
SAID_TO_BE = re.compile(r"placeholder|example|e\.g\.", re.IGNORECASE)  # in the code before a value
SAID_WITHIN = 60  # characters
WELL_KNOWN = (
    "eyJzdWIiOiIxMjM0NTY3ODkwI",  # the token on the first page of jwt.io
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq",  # every Azurite has it
)
KEY_MARK = re.compile(r"BEGIN [A-Z ]*PRIVATE KEY(?: BLOCK)?-----")
KEY_HEADER = re.compile(r"(?:Proc-Type|DEK-Info|Version|Comment):[^\n\\]*")
KEY_BODY = re.compile(r"(?:[\s\"'+,]|\\[nrt])*[A-Za-z0-9+/=]{40,}")  # an Ed25519 key has 64 characters


def is_harmless(kind: str, value: str, file: str, text: str) -> bool:
    """Whether a secret that a detector found in the text of a file gives no access.

    `kind` is the name of the detector. Tokens of a provider are only harmless by what they say themselves: in a test
    they may be real. Passwords in URLs, private keys and JSON Web Tokens are fixtures in tests and examples.
    """
    match kind:
        case "Basic Auth Credentials":
            return _is_fixture(file) or _has_local_url(value, text)
        case "Private Key":
            return _is_fixture(file) or not any(_has_body(text[mark.end() :]) for mark in KEY_MARK.finditer(text))
        case "JSON Web Token":
            return _is_fixture(file) or _is_placeholder(value, text)
        case "Base64 High Entropy String" | "Hex High Entropy String" | "Secret Keyword" | "Public IP (ipv4)":
            return False  # only a baseline of the repository asks for them, and has its own exceptions
        case _:
            return _is_placeholder(value, text) or _is_part_of_longer(value, text)


def _is_fixture(file: str) -> bool:
    path = PurePosixPath(file)
    words = {word.lower() for part in path.parts for word in WORDS.findall(part)}
    return bool(words & FIXTURES or {ending.lower() for ending in re.split("[.-]", path.name)} & EXAMPLE_ENDINGS)


def _is_placeholder(value: str, text: str) -> bool:
    if PLACEHOLDER.search(value) or any(known in value for known in WELL_KNOWN):
        return True
    before = [
        text[max(0, found.start() - SAID_WITHIN) : found.start()] for found in re.finditer(re.escape(value), text)
    ]
    return bool(before) and all(SAID_TO_BE.search(one.rpartition("\n")[2]) for one in before)


def _is_part_of_longer(value: str, text: str) -> bool:
    """Whether the value only occurs within longer ones, such as an image in base64."""
    alone = rf"(?<![A-Za-z0-9+/]){re.escape(value)}(?![A-Za-z0-9+/])"
    return value in text and not re.search(alone, text)


# --- passwords in URLs -------------------------------------------------------------------------------------------


def _has_local_url(password: str, text: str) -> bool:
    """Whether each URL with this password is of a local or an example address, or has a placeholder as password."""
    if _is_placeholder_password(password):
        return True
    urls = list(re.finditer(URL_WITH.format(password=re.escape(password)), text))
    return bool(urls) and all(url["user"] == password or _is_local(url["address"]) for url in urls)


def _is_placeholder_password(password: str) -> bool:
    if TEMPLATE.search(re.sub("%[0-9A-Fa-f]{2}", "", password)):
        return True
    words = re.findall("[a-z]+|[0-9]+", unquote(password).lower())
    return all(PLACEHOLDER_WORDS.fullmatch(word) for word in words)


def _is_local(address: str) -> bool:
    """Whether this address is local to a machine, or reserved for documentation."""
    if TEMPLATE.search(address):
        return True
    host = re.split("[/?#,]", address)[0].lower()
    host = host.partition("]")[0].removeprefix("[") if host.startswith("[") else host.partition(":")[0]
    try:
        return not ipaddress.ip_address(host).is_global
    except ValueError:
        pass
    domain = host.rstrip(".")
    return (
        "." not in domain  # the name of a container or service
        or domain.rpartition(".")[2] in LOCAL_DOMAINS
        or domain in NO_ADDRESS
        or domain.endswith(tuple(f".{one}" for one in (*NO_ADDRESS, *LOCAL_DOMAINS)))
    )


# --- private keys ------------------------------------------------------------------------------------------------


def _has_body(text: str) -> bool:
    """Whether the text after the mark of a key begins with its content, as lines or in one string of a program."""
    start = 0
    while header := re.compile(rf"(?:\s|\\[nr])*{KEY_HEADER.pattern}").match(text, start):
        start = header.end()
    return KEY_BODY.match(text, start) is not None
