"""Documents of an OCI registry: manifests and indexes, their media types, references and digests."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, Field

__all__ = [
    "ACCEPT",
    "DIGEST",
    "INDEX",
    "MANIFEST",
    "REPOSITORY",
    "TAG",
    "Content",
    "Descriptor",
    "Manifest",
    "descriptor",
    "digest_of",
    "encoded",
    "fits",
    "referrers_tag",
]

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
ACCEPT = {"Accept": ", ".join((MANIFEST, INDEX, DOCKER_MANIFEST, DOCKER_INDEX))}

PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
REPOSITORY = re.compile(rf"{PART}(?:/{PART})*")
TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")


class Descriptor(BaseModel):
    digest: str = Field(pattern=f"^(?:{DIGEST.pattern})$")
    size: int
    artifactType: str | None = None  # noqa: N815  # OCI's name
    urls: list[str] = []


class Content(BaseModel):
    """Fields of an image manifest, an artifact manifest or an index."""

    schemaVersion: Literal[2]  # noqa: N815  # OCI's name
    mediaType: str = ""  # noqa: N815  # OCI's name
    config: Descriptor | None = None
    layers: list[Descriptor] = []
    manifests: list[Descriptor] | None = None


class Manifest(NamedTuple):
    media_type: str
    body: bytes
    content: Content


def descriptor(media_type: str, content: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest_of(content), "size": len(content)}


def encoded(document: dict[str, Any]) -> bytes:
    """Canonical JSON: equal documents have equal bytes, and so the same digest."""
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def digest_of(content: bytes, algorithm: str = "sha256") -> str:
    return f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}"


def fits(content: bytes, digest: str) -> bool:
    return digest_of(content, digest.partition(":")[0]) == digest


def referrers_tag(digest: str) -> str:
    """Tag of the list of referrers, which OCI 1.1 uses for registries without the referrers API."""
    algorithm, _, content = digest.partition(":")
    return f"{algorithm}-{content[:64]}"
