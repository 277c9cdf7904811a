"""Describe an image: its content as a CycloneDX SBOM, its build as SLSA provenance in an in-toto statement.

The SBOM lists what package managers recorded in the image: Debian and Alpine packages, Python distributions, Node
modules, and Go modules in binaries. Files copied in without a package manager are not listed.
"""

from __future__ import annotations

import json
import posixpath
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from email.parser import HeaderParser
from typing import IO, NamedTuple

from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from headway.build.images import Recipe
from headway.domain.source import Source

__all__ = ["CYCLONEDX", "IN_TOTO", "Package", "bill_of_materials", "packages", "provenance"]

LARGEST = 64 * 1024 * 1024  # bytes of one package database, or of a binary that is searched for Go modules
CYCLONEDX, IN_TOTO = "application/vnd.cyclonedx+json", "application/vnd.in-toto+json"
BUILD_TYPE = "https://headway.dev/build/dockerfile/v1"
BUILDER = "https://headway.dev/worker"
GO_BUILD = b"\xff Go buildinf:"
GO_MODULE = re.compile(rb"(?:^|\n)(?:mod|dep)\t(\S+)\t(v\S+)")


class Package(NamedTuple):
    """One package, with the fields of a package URL: https://github.com/package-url/purl-spec."""

    kind: str
    name: str
    version: str
    group: str = ""


def packages(root: tarfile.TarFile) -> list[Package]:
    """Installed packages of a root file system, sorted and unique. The archive is read as a stream."""
    found: set[Package] = set()
    for member in root:
        path = posixpath.normpath(f"/{member.name}")
        reader = next((read for pattern, read in READERS if pattern.search(path)), None)
        if reader is None and member.mode & 0o111 and member.isfile():
            reader = _go
        if reader is not None and member.isfile() and member.size <= LARGEST:
            content = root.extractfile(member)
            assert content is not None  # a regular file
            found |= set(reader(content))
    return sorted(found)


def _debian(file: IO[bytes]) -> Iterator[Package]:
    for stanza in file.read().decode(errors="replace").split("\n\n"):
        fields = HeaderParser().parsestr(stanza)
        if "ok installed" in fields.get("Status", "") or ("Status" not in fields and "Package" in fields):
            yield Package("deb", fields["Package"], fields.get("Version", ""), "debian")


def _alpine(file: IO[bytes]) -> Iterator[Package]:
    for stanza in file.read().decode(errors="replace").split("\n\n"):
        fields = dict(line.split(":", 1) for line in stanza.splitlines() if line[1:2] == ":")
        if "P" in fields:
            yield Package("apk", fields["P"], fields.get("V", ""), "alpine")


def _python(file: IO[bytes]) -> Iterator[Package]:
    fields = HeaderParser().parsestr(file.read().decode(errors="replace"))
    if fields.get("Name") and fields.get("Version"):
        yield Package("pypi", re.sub(r"[-_.]+", "-", fields["Name"]).lower(), fields["Version"])


def _node(file: IO[bytes]) -> Iterator[Package]:
    try:
        content = json.load(file)
    except ValueError:
        return
    if isinstance(content, dict) and isinstance(content.get("name"), str) and isinstance(content.get("version"), str):
        group, _, name = content["name"].rpartition("/")
        yield Package("npm", name, content["version"], group)


def _go(file: IO[bytes]) -> Iterator[Package]:
    """Modules that the Go linker records in each binary, as `go version -m` prints them."""
    if file.read(4) != b"\x7fELF":
        return
    content = file.read()
    if GO_BUILD in content:
        for name, version in GO_MODULE.findall(content):
            group, _, last = name.decode(errors="replace").rpartition("/")
            yield Package("golang", last, version.decode(errors="replace"), group)


READERS: tuple[tuple[re.Pattern[str], Callable[[IO[bytes]], Iterable[Package]]], ...] = (
    (re.compile(r"^/var/lib/dpkg/(status|status\.d/[^/]+)$"), _debian),  # status.d is in distroless images
    (re.compile(r"^/lib/apk/db/installed$"), _alpine),
    (re.compile(r"\.dist-info/METADATA$|\.egg-info/PKG-INFO$"), _python),
    (re.compile(r"/node_modules/(@[^/]+/)?[^/]+/package\.json$"), _node),
)


def bill_of_materials(name: str, digest: str, found: Iterable[Package]) -> str:
    """CycloneDX 1.6 SBOM of the image `name@digest`, as JSON."""
    bom = Bom()
    image = Component(type=ComponentType.CONTAINER, name=name, version=digest, bom_ref=f"{name}@{digest}")
    bom.metadata.component = image
    for package in found:
        purl = PackageURL(package.kind, package.group or None, package.name, package.version)
        bom.components.add(
            Component(
                type=ComponentType.LIBRARY,
                name=package.name,
                group=package.group or None,
                version=package.version,
                purl=purl,
                bom_ref=str(purl),
            )
        )
    bom.register_dependency(image, bom.components)
    return str(JsonV1Dot6(bom).output_as_string())


def provenance(
    source: Source, recipe: Recipe, *, digest: str, builder: str, run: str, begun: datetime, ended: datetime
) -> str:
    """An in-toto statement, https://slsa.dev/spec/v1.0/provenance, as JSON, unsigned."""
    statement = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": recipe.repository, "digest": {"sha256": digest.removeprefix("sha256:")}}],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {"source": source.public_repo, "ref": source.ref, **recipe.model_dump()},
                "internalParameters": {"builder": builder, "fork": not source.trusted},
                "resolvedDependencies": [
                    {"uri": f"git+{source.public_repo}@{source.ref}", "digest": {"gitCommit": source.sha}}
                ],
            },
            "runDetails": {
                "builder": {"id": BUILDER},
                "metadata": {
                    "invocationId": run,
                    "startedOn": begun.isoformat(),
                    "finishedOn": ended.isoformat(),
                },
            },
        },
    }
    return json.dumps(statement, indent=1)
