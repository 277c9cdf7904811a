"""Signed documents: DSSE envelopes (https://github.com/secure-systems-lab/dsse), signed with an Ed25519 key.

Each HEADWAY_HOME has a key of its own, `keys/signing.pem`, made when it is first needed. `keys/signing.pub.pem` is its
public half. Public keys of other installations are trusted when they are in `keys/trusted/`.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import CryptoSigner, Key, SSlibKey

from headway.domain.errors import HeadwayError

__all__ = ["public_key_file", "sign", "trusted_keys", "verify"]


def public_key_file(home: Path) -> Path:
    """The file with the public key of a HEADWAY_HOME, to give to those who verify."""
    return home / "keys" / "signing.pub.pem"


def trusted_keys(home: Path) -> list[Path]:
    """Files of the public keys that this HEADWAY_HOME trusts: its own, and those in `keys/trusted/`."""
    own = public_key_file(home)
    return [*([own] if own.exists() else []), *sorted((home / "keys" / "trusted").glob("*.pem"))]


def sign(payload: bytes, payload_type: str, home: Path) -> dict[str, Any]:
    """An envelope around the payload, with the signature of this HEADWAY_HOME. Raises HeadwayError."""
    envelope = Envelope(payload, payload_type, {})
    envelope.sign(_signer(home))
    return dict(envelope.to_dict())


def verify(envelope: Mapping[str, Any], payload_type: str, keys: Iterable[Path]) -> bytes:
    """The payload of an envelope that one of these public keys has signed. Raises HeadwayError."""
    try:
        read = Envelope.from_dict(copy.deepcopy(dict(envelope)))
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise HeadwayError("this is no signed envelope (DSSE)", "name the file that Headway wrote") from error
    if read.payload_type != payload_type:
        raise HeadwayError(f"the envelope has a {read.payload_type}, not a {payload_type}", "name another file")
    known = [_public_key(file) for file in keys]
    if not known:
        raise HeadwayError("there is no public key to verify with", "name one with --key, or copy it to keys/trusted/")
    try:
        read.verify(known, 1)
    except VerificationError as error:
        signed = ", ".join(keyid[:12] for keyid in read.signatures) or "nobody"
        trusted = ", ".join(key.keyid[:12] for key in known)
        raise HeadwayError(
            f"the signature is not valid: it names the key {signed}, and {trusted} is trusted",
            "the document was changed, or another installation signed it: get its public key, keys/signing.pub.pem",
        ) from error
    return bytes(read.payload)


def _signer(home: Path) -> CryptoSigner:
    file = home / "keys" / "signing.pem"
    try:
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            _write_once(file, CryptoSigner.generate_ed25519().private_bytes, 0o600)
        private = load_pem_private_key(file.read_bytes(), password=None)
        if not isinstance(private, Ed25519PrivateKey):
            raise ValueError("it is no Ed25519 key")  # noqa: TRY004 - the file has the wrong kind
        if not public_key_file(home).exists():
            public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
            _write_once(public_key_file(home), public, 0o644)
    except (OSError, ValueError) as error:
        raise HeadwayError(f"{file}: cannot be used to sign: {error}", "restore it, or move it away") from error
    return CryptoSigner(private)


def _write_once(file: Path, content: bytes, mode: int) -> None:
    """Write a new file, complete or not at all. One that another process has written stays."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}.{os.urandom(4).hex()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as written:
            written.write(content)
        try:
            os.link(temporary, file)
        except FileExistsError:
            return
    finally:
        temporary.unlink()


def _public_key(file: Path) -> Key:
    try:
        public = load_pem_public_key(file.read_bytes())
        if not isinstance(public, Ed25519PublicKey):
            raise ValueError("it is no Ed25519 key")  # noqa: TRY004 - the file has the wrong kind
        return SSlibKey.from_crypto(public)
    except (OSError, ValueError) as error:
        raise HeadwayError(f"{file}: is no public key (PEM): {error}", "name the file signing.pub.pem") from error
