"""Packages found in an image, and its provenance statement."""

from __future__ import annotations

import io
import json
import tarfile
from datetime import UTC, datetime

import pytest

from headway.build import sbom
from headway.build.images import Recipe
from headway.build.sbom import Package
from headway.domain.source import Source

DPKG = """Package: libc6
Status: install ok installed
Version: 2.36-9+deb12u14
Description: GNU C Library
 more of it

Package: gone
Status: deinstall ok config-files
Version: 1
"""
APK = "P:musl\nV:1.2.5-r0\nA:x86_64\n\nP:busybox\nV:1.37.0-r3\n"
GO = (
    b"\x7fELF....\xff Go buildinf:\x08\x02path\tshop\n"
    b"mod\texample.com/shop\tv1.2.3\th1:x\ndep\tgolang.org/x/net\tv0.30.0\th1:y\n"
)
FOUND: dict[tuple[str, str | bytes], list[Package]] = {
    ("var/lib/dpkg/status", DPKG): [Package("deb", "libc6", "2.36-9+deb12u14", "debian")],
    ("var/lib/dpkg/status.d/tzdata", "Package: tzdata\nVersion: 2026a\n"): [
        Package("deb", "tzdata", "2026a", "debian")
    ],
    ("lib/apk/db/installed", APK): [
        Package("apk", "busybox", "1.37.0-r3", "alpine"),
        Package("apk", "musl", "1.2.5-r0", "alpine"),
    ],
    ("venv/lib/python3.13/site-packages/My_App-1.0.dist-info/METADATA", "Name: My_App\nVersion: 1.0\n\nwords"): [
        Package("pypi", "my-app", "1.0")
    ],
    ("app/node_modules/@acme/ui/package.json", '{"name": "@acme/ui", "version": "3.0.0"}'): [
        Package("npm", "ui", "3.0.0", "@acme")
    ],
    ("app/node_modules/left-pad/package.json", '{"name": "left-pad", "version": "1.0.0"}'): [
        Package("npm", "left-pad", "1.0.0")
    ],
    ("app/node_modules/broken/package.json", "{"): [],
    ("app/package.json", '{"name": "app", "version": "1.0.0"}'): [],
    ("usr/local/bin/shop", GO): [
        Package("golang", "net", "v0.30.0", "golang.org/x"),
        Package("golang", "shop", "v1.2.3", "example.com"),
    ],
    ("usr/local/bin/script", b"#!/bin/sh\n" + GO): [],
}


def root(files: dict[str, str | bytes]) -> tarfile.TarFile:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for path, content in files.items():
            data = content.encode() if isinstance(content, str) else content
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(data), 0o755
            tar.addfile(entry, io.BytesIO(data))
    packed.seek(0)
    return tarfile.open(fileobj=packed)


@pytest.mark.parametrize(("path", "content"), FOUND)
def test_installed_packages_are_found(path: str, content: str | bytes) -> None:
    assert sbom.packages(root({path: content})) == FOUND[path, content]


def test_sbom_lists_each_package_once() -> None:
    found = sbom.packages(root(dict(FOUND.keys())))
    told = json.loads(sbom.bill_of_materials("ghcr.io/acme/shop", "sha256:" + "a" * 64, found))
    assert (told["bomFormat"], told["specVersion"]) == ("CycloneDX", "1.6")
    assert told["metadata"]["component"]["name"] == "ghcr.io/acme/shop"
    assert len({one["purl"] for one in told["components"]}) == len(told["components"]) == sum(map(len, FOUND.values()))
    assert "pkg:npm/%40acme/ui@3.0.0" in {one["purl"] for one in told["components"]}
    assert "pkg:deb/debian/libc6@2.36-9%2Bdeb12u14" in {one["purl"] for one in told["components"]}


def test_provenance_names_the_commit_and_no_password() -> None:
    source = Source(
        repo="https://ann:hunter2@git.example.com/shop",
        ref="main",
        sha="1" * 40,
        tree="2" * 40,
        author="Ann <ann@example.com>",
        subject="first",
        committed_at=datetime(2026, 1, 1, tzinfo=UTC),
        workspace="/nowhere",
    )
    moment = datetime(2026, 1, 2, tzinfo=UTC)
    said = sbom.provenance(
        source,
        Recipe(repository="ghcr.io/acme/shop", args={"COLOUR": "red"}),
        digest="sha256:" + "a" * 64,
        builder="BuildKit",
        run="shop#1",
        begun=moment,
        ended=moment,
    )
    told = json.loads(said)
    assert told["subject"] == [{"name": "ghcr.io/acme/shop", "digest": {"sha256": "a" * 64}}]
    definition = told["predicate"]["buildDefinition"]
    assert definition["resolvedDependencies"] == [
        {"uri": "git+https://git.example.com/shop@main", "digest": {"gitCommit": "1" * 40}}
    ]
    assert definition["externalParameters"]["args"] == {"COLOUR": "red"}
    assert told["predicate"]["runDetails"]["metadata"]["invocationId"] == "shop#1"
    assert "hunter2" not in said
