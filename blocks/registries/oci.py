"""An OCI registry: push images, look up digests, attach SBOMs and attestations."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import docker
import requests
import urllib3
from docker.errors import APIError, DockerException, ImageNotFound
from prefect.blocks.core import Block
from pydantic import ConfigDict, Field, SecretStr, field_validator, model_validator

from blocks.registries.oci_client import HUB, LONGEST, Conversation
from blocks.registries.oci_documents import DIGEST, MANIFEST, REPOSITORY, TAG, descriptor, encoded
from blocks.registries.registry_login import Credentials
from headway.build.docker_engine import words
from headway.domain import ports
from headway.domain.base import Frozen
from headway.domain.errors import RegistryError

__all__ = ["Referrer", "Registry"]

NOTHING = b"{}"  # the config of an artifact that has none
NOTHING_TYPE = "application/vnd.oci.empty.v1+json"

HOST = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")


class Referrer(Frozen):
    """A document attached to an image, such as an SBOM or an attestation, as the registry lists it."""

    digest: str = Field(description="digest of its manifest")
    artifact_type: str = Field(description="its media type; empty if unknown")
    size: int = Field(description="size of its manifest in bytes")


class Registry(Block, ports.Registry):
    """Any registry with the OCI distribution API: ghcr.io, Docker Hub, ECR, GitLab, Harbor, self-hosted ones.

    Repository names may start with the registry's host. Every method raises RegistryError. Temporary errors
    (5xx, 429, a broken connection) are retried with exponential backoff or after the registry's Retry-After.
    """

    _block_type_name = "Headway Registry"
    _block_type_slug = "registry"
    _description = "Stores images, SBOMs and attestations in an OCI registry."

    model_config = ConfigDict(hide_input_in_errors=True)  # a rejected value may be the password

    host: str = Field(description="host name and port, such as ghcr.io, docker.io or 127.0.0.1:5000")
    plain_http: bool = Field(default=False, description="use plain http instead of https")
    username: str | None = Field(default=None, description="user name. Omit it for anonymous access")
    password: SecretStr | None = Field(default=None, description="password or token of that user")
    timeout: float = Field(default=30.0, gt=0, allow_inf_nan=False, description="seconds that a request may take")
    push_timeout: float = Field(
        default=1800.0,
        gt=0,
        allow_inf_nan=False,
        description="seconds that the push of a tag may take, with all attempts",
    )
    tries: int = Field(default=5, ge=1, le=20, description="attempts for errors that may be temporary")

    @field_validator("host")
    @classmethod
    def _bare(cls, value: str) -> str:
        if not HOST.fullmatch(value.strip()):
            raise ValueError("only the registry's name and port, without https://, user and path")
        host = value.strip().lower()
        return HUB[0] if host in HUB else host

    @field_validator("username")
    @classmethod
    def _nameable(cls, value: str | None) -> str | None:
        name = (value or "").strip()
        if ":" in name or not name.isprintable():
            raise ValueError("a user's name has no colon and is on one line")
        return name or None

    @field_validator("password")
    @classmethod
    def _trimmed(cls, value: SecretStr | None) -> SecretStr | None:
        # Tokens read from files often end in a newline. An empty field of a form is an empty string.
        password = value.get_secret_value().strip() if value else ""
        return SecretStr(password) if password else None

    @model_validator(mode="after")
    def _both(self) -> Registry:
        if (self.username is None) != (self.password is None):
            raise ValueError("a user needs a password, and a password its user")
        return self

    # --- what is there -----------------------------------------------------------------------------------------

    def digest(self, repository: str, reference: str) -> str | None:
        """Digest of a tag or digest according to the registry; None if it does not exist."""
        with self._about(repository) as conversation:
            return conversation.digest(self._reference(reference))

    def exists(self, repository: str, digest: str) -> bool:
        """Whether an image is complete: its manifest and every blob exist; for an index, every image."""
        with self._about(repository) as conversation:
            return conversation.is_whole(self._digest(digest))

    # --- images ------------------------------------------------------------------------------------------------

    def push(
        self,
        engine: docker.DockerClient,
        image: str,
        repository: str,
        tags: Sequence[str],
        on_line: Callable[[str], None],
    ) -> str:
        """Push an image of the engine under all these tags. Returns the registry's digest of the first tag.

        An interrupted push is retried; the engine skips layers that the registry has. The timeout of the engine's
        client limits the time between two lines of its output.
        """
        if not tags:
            raise self._error(repository, "a push without a tag", "give it at least one")
        with self._about(repository) as conversation:
            # The engine chooses between http and https itself; this check refuses plain http unless it is allowed.
            conversation.patiently(conversation.greet)
            for tag in map(self._reference, tags):
                self._push(engine, image, conversation, tag, on_line)
            digest = conversation.digest(tags[0])
        if digest is None:
            raise self._error(
                repository, f"pushed, but there is no {tags[0]}", "does another process remove tags there?"
            )
        return digest

    def _push(
        self,
        engine: docker.DockerClient,
        image: str,
        conversation: Conversation,
        tag: str,
        on_line: Callable[[str], None],
    ) -> None:
        end = time.monotonic() + self.push_timeout
        name = f"{self.host}/{conversation.repository}"

        def say(line: str) -> None:
            on_line(f"{name}:{tag}: {conversation.quote(line)}")

        def once() -> None:
            try:
                engine.api.tag(image, name, tag)
                self._push_once(engine, name, tag, conversation, end, say)
            except ImageNotFound:
                raise conversation.error(f"{image} is not on the engine", "was it built there, or removed?") from None
            except APIError as error:
                raise conversation.push_failed(words(error), tag) from None
            except (DockerException, requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
                raise conversation.broken(f"the Docker engine broke off: {type(error).__name__}: {error}") from None

        conversation.patiently(once, self.push_timeout, say)

    def _push_once(
        self,
        engine: docker.DockerClient,
        name: str,
        tag: str,
        conversation: Conversation,
        end: float,
        say: Callable[[str], None],
    ) -> None:
        """Push once. Also raises the exceptions of the docker client."""
        login = {"username": self.username, "password": self.password.get_secret_value()} if self.password else {}
        told: dict[str, str] = {}
        # {} means anonymous. Without it, the engine's client would use the login of this machine's user.
        for event in engine.api.push(name, tag=tag, stream=True, decode=True, auth_config=login):
            if "error" in event:
                raise conversation.push_failed(str(event["error"]), tag)
            layer, status = str(event.get("id", "")), str(event.get("status", ""))
            state = re.sub(r"\d+", "", status)  # ignore the countdown in "Retrying in 4 seconds"
            if status and told.get(layer) != state:
                told[layer] = state
                say(f"{layer}: {status}" if layer else status)
            if time.monotonic() > end:
                raise conversation.error(
                    f"no end of the push of {tag} after {self.push_timeout:g} s", "raise the block's push_timeout"
                )

    # --- what is known about images ----------------------------------------------------------------------------

    def attach(self, repository: str, subject_digest: str, artifact_type: str, content: bytes, media_type: str) -> str:
        """Attach a document to an image. Returns the document's digest; equal documents are stored once.

        A registry without the referrers API gets a list of referrers under a tag, as in OCI 1.1. If two processes
        attach to the same image at the same time, that list can lose one of the two.
        """
        with self._about(repository) as conversation:
            subject = conversation.manifest(self._digest(subject_digest))
            if subject is None:
                raise conversation.error(f"there is no {subject_digest} to attach to", "push the image first")
            layer = descriptor(media_type, content)
            manifest = encoded(
                {
                    "schemaVersion": 2,
                    "mediaType": MANIFEST,
                    "artifactType": artifact_type,
                    "config": descriptor(NOTHING_TYPE, NOTHING),
                    "layers": [layer],
                    "subject": {"mediaType": subject.media_type, "digest": subject_digest, "size": len(subject.body)},
                }
            )
            conversation.upload(NOTHING)
            conversation.upload(content)
            itself = descriptor(MANIFEST, manifest)
            listed = conversation.put(itself["digest"], manifest, MANIFEST).headers.get("OCI-Subject")
            if listed is None:
                conversation.list_under_tag(subject_digest, {**itself, "artifactType": artifact_type})
            return str(itself["digest"])

    def referrers(self, repository: str, digest: str) -> list[Referrer]:
        """Documents attached to an image, oldest first if the registry keeps the order; none for an unknown image."""
        with self._about(repository) as conversation:
            return [
                Referrer(digest=one.digest, artifact_type=one.artifactType or "", size=one.size)
                for one in conversation.referrers(self._digest(digest))
            ]

    def attached(self, repository: str, digest: str) -> bytes:
        """Content of an attached document, checked against its digest."""
        with self._about(repository) as conversation:
            found = conversation.manifest(self._digest(digest))
            if found is None or not found.content.layers:
                raise conversation.error(f"there is no statement {digest}", "ask for its referrers again")
            return conversation.blob(found.content.layers[0].digest)

    # --- the registry ------------------------------------------------------------------------------------------

    @contextmanager
    def _about(self, repository: str) -> Iterator[Conversation]:
        name = repository.removeprefix(f"{self.host}/")
        if not REPOSITORY.fullmatch(name):
            raise self._error(repository, "no name of a repository", "lower case and without a tag, as in team/shop")
        if self.host == HUB[0] and "/" not in name:
            name = f"library/{name}"
        password = self.password.get_secret_value() if self.password else None
        conversation = Conversation(
            Credentials(self.host, self.plain_http, self.username, password, self.timeout, self.tries), name
        )
        try:
            yield conversation
        finally:
            conversation.close()

    def _reference(self, reference: str) -> str:
        if not (TAG.fullmatch(reference) or DIGEST.fullmatch(reference)):
            raise self._error(reference, "neither a tag nor a digest", "a digest begins with sha256:")
        return reference

    def _digest(self, digest: str) -> str:
        if not DIGEST.fullmatch(digest):
            raise self._error(digest, "not a digest", "a digest is sha256: and 64 hexadecimal digits")
        return digest

    def _error(self, about: str, what: str, hint: str) -> RegistryError:
        shown = about if about.isprintable() and len(about) <= LONGEST else f"{about[:LONGEST]!r}"
        return RegistryError(f"registry {self.host}: {shown}: {what}", hint)
