"""`headway receipt` and `headway verify`."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from headway.cli.help_text import examples
from headway.cli.options import Json, ReleaseArgument
from headway.cli.output import output
from headway.domain.errors import NotFound, UsageError
from headway.domain.text import printable
from headway.ledger import Ledger
from headway.ledger.receipts import Receipt
from headway.policy.receipts.verification import Expected, verify
from headway.system import signatures
from headway.system.paths import home, ledger_url

__all__ = ["receipt", "verify_receipt"]

AtEnd = Annotated[str, typer.Option(help="Environment; default: the newest receipt")]


@examples("headway receipt shop#14", "headway receipt shop#14 --environment production > receipt.json")
def receipt(run: ReleaseArgument, environment: AtEnd = "", _json: Json = False) -> None:
    """Print the signed receipt of a release, a DSSE envelope.

    With --json, print the statement in it as well.
    """
    with Ledger.open(ledger_url()) as ledger:
        release = ledger.releases.find(run)
        found = [one for one in ledger.receipts.by_release(release.id) if environment in ("", one.environment)]
    if not found:
        raise NotFound(
            f"{release.name} has no receipt{environment and f' for {environment}'}",
            "receipts are signed since version 0.2, before a rollout and at the end",
        )
    envelope = found[-1].envelope
    output.say(json.dumps(envelope))
    statement = json.loads(base64.b64decode(envelope["payload"]))
    output.result({"environment": found[-1].environment, "envelope": envelope, "statement": statement})


@examples(
    "headway verify shop#14",
    "headway verify shop#14 --receipt receipt.json --key signing.pub.pem",
)
def verify_receipt(
    what: Annotated[str, typer.Argument(metavar="RELEASE|DIGEST", help="Release such as shop#14, or sha256:...")],
    key: Annotated[
        list[Path] | None, typer.Option(help="Public key that may have signed; default: those in HEADWAY_HOME")
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--receipt", help="Receipt to verify; default: those in the ledger")
    ] = None,
    _json: Json = False,
) -> None:
    """Verify the receipts of a release or an artifact, offline.

    The signature must be valid, and the receipt must be about this release or digest. Its checks must have passed, and
    the environments before must have accepted it.
    """
    keys = key or signatures.trusted_keys(home())
    envelopes, expected = ([_read(file)], _expected(what)) if file else _stored(what)
    verified = [verify(envelope, keys, expected) for envelope in envelopes]
    for predicate in verified:
        output.say(*_lines(predicate))
    output.result(verified)


def _expected(what: str) -> Expected:
    return Expected(digest=what) if what.startswith("sha256:") else Expected(release=what)


def _read(file: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(file.read_bytes()))
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(f"{file}: is no receipt: {error}", "headway receipt RELEASE prints one") from error


def _stored(what: str) -> tuple[list[dict[str, Any]], Expected]:
    """The envelopes in the ledger. Their rows are not trusted: what they say is expected of the envelopes."""
    with Ledger.open(ledger_url()) as ledger:
        if what.startswith("sha256:"):
            found, expected = ledger.receipts.by_digest(what), Expected(digest=what)
        else:
            release = ledger.releases.find(what)
            found = ledger.receipts.by_release(release.id)
            expected = Expected(app=release.app, release=release.name, digest=release.digest, commit=release.sha)
    if not found:
        raise NotFound(f"there is no receipt of {what}", "name a release that was rolled out, or --receipt FILE")
    return [one.envelope for one in _newest_of_each(found)], expected


def _newest_of_each(found: list[Receipt]) -> list[Receipt]:
    return list({(one.app, one.environment): one for one in found}.values())


def _lines(predicate: dict[str, Any]) -> list[str]:
    about = f"for {predicate['environment']}" if predicate["environment"] else "at its end"
    title = f"{predicate['release']}: the receipt {about} is valid, signed {predicate['signedAt'][:19]} UTC"
    source = predicate["source"]
    rows = [("artifact", predicate["build"]["digest"]), ("commit", f"{source['commit']} of {source['repository']}")]
    rows += [("author", source["author"])]
    rows += [("check", f"{check['name']} {check['state']}") for check in predicate["checks"]]
    rows += [("approval", f"{one['environment']} ({one['asks']}) by {one['by']}") for one in predicate["approvals"]]
    rows += [("rolled out", _rolled_out(one)) for one in predicate["environments"]]
    return [printable(title), *(f"  {label:11} {printable(value)}" for label, value in rows)]


def _rolled_out(environment: dict[str, Any]) -> str:
    requests = environment["requests"]
    counted = f", {requests['total']} requests, {requests['failed']} failed" if requests else ""
    verdicts = "; ".join(f"{one['step']}: {one['outcome']}" for one in environment["verdicts"])
    return f"{environment['name']} ({environment['strategy']}){counted}{verdicts and f'; {verdicts}'}"
