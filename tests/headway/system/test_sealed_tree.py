from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from headway.system import sealed_tree


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / "a").write_text("2"),
        lambda root: (root / "a").chmod(0o755),
        lambda root: (root / "a").rename(root / "c"),
        lambda root: (root / "link").unlink(),
        lambda root: (root / "new").symlink_to("a"),
        lambda root: (root / "empty").mkdir(),
        lambda root: (root / "deep/b").write_text("1"),
    ],
)
def test_every_difference_changes_the_digest(tmp_path: Path, change: Callable[[Path], object]) -> None:
    root = tmp_path / "tree"
    (root / "deep").mkdir(parents=True)
    (root / "a").write_text("1")
    (root / "link").symlink_to("a")
    before = sealed_tree.digest_of(root)
    change(root)
    assert sealed_tree.digest_of(root) != before


def test_times_owners_and_mode_bits_do_not_change_the_digest(tmp_path: Path) -> None:
    root = tmp_path / "tree"
    root.mkdir()
    (root / "a").write_text("1")
    before = sealed_tree.digest_of(root)
    os.utime(root / "a", (0, 0))
    (root / "a").chmod(0o440)
    assert sealed_tree.digest_of(root) == before


def test_file_names_that_are_not_utf_8(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"\xff")).write_text("1")
    assert len(sealed_tree.digest_of(tmp_path)) == 64


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A sealed tree, in a store that has its manifest."""
    tree = tmp_path / "store" / "sha256" / "tree"
    (tree / "deep").mkdir(parents=True)
    (tree / "app.py").write_text("1")
    (tree / "deep" / "run\nme").write_text("1")
    (tree / "deep" / "run\nme").chmod(0o755)
    (tree / "link").symlink_to("app.py\nfile")
    sealed_tree.seal(tree)
    manifest = sealed_tree.manifest_file(tree)
    manifest.parent.mkdir()
    manifest.write_bytes(sealed_tree.manifest_of(tree))
    return tree


def test_the_right_to_write_is_taken_and_others_stay(place: Path) -> None:
    modes = {entry.path: entry.mode & 0o7777 for entry in sealed_tree.entries(place) if entry.link is None}
    assert modes == {"app.py": 0o444, "deep": 0o555, "deep/run\nme": 0o555}
    assert place.stat().st_mode & 0o7777 == 0o555


def other_content(place: Path) -> None:
    (place / "app.py").unlink()
    (place / "app.py").write_text("2")
    (place / "app.py").chmod(0o444)


def became_a_link(place: Path) -> None:
    (place / "app.py").unlink()
    (place / "app.py").symlink_to("/etc/passwd")


def other_link(place: Path) -> None:
    (place / "link").unlink()
    (place / "link").symlink_to("deep")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (other_content, ["app.py: has other content"]),
        (became_a_link, ["app.py: was a file, is a link"]),
        (other_link, ["link: has other content"]),
        (lambda place: (place / "app.py").chmod(0o644), ["app.py: has the mode 0644"]),
        (lambda place: (place / "app.py").chmod(0o2444), ["app.py: has the mode 2444"]),
        (lambda place: (place / "deep").chmod(0o777), ["deep: has the mode 0777"]),
        (lambda place: (place / "app.py").chmod(0o555), ["app.py: was a file, is a program"]),
        (lambda place: (place / "deep" / "new").write_text("1"), ["deep/new: was added"]),
        (lambda place: (place / "deep" / "run\nme").unlink(), ["deep/run\nme: is gone"]),
        (lambda place: None, []),
    ],
)
def test_every_change_of_a_sealed_tree_is_named(place: Path, change: Callable[[Path], object], said: list[str]) -> None:
    digest = sealed_tree.digest_of(place)
    for directory in (place, place / "deep"):
        directory.chmod(0o755)
    change(place)
    for directory in (place, place / "deep"):
        if directory.stat().st_mode & 0o777 == 0o755:
            directory.chmod(0o555)
    assert sealed_tree.changes(place, digest, sealed_tree.manifest_file(place)) == said


def test_a_manifest_that_was_changed_as_well_names_nothing(place: Path) -> None:
    digest, manifest = sealed_tree.digest_of(place), sealed_tree.manifest_file(place)
    place.chmod(0o755)
    other_content(place)
    manifest.write_bytes(sealed_tree.manifest_of(place))
    assert sealed_tree.changes(place, digest, manifest) == ["its content has another digest"]
    manifest.unlink()
    assert sealed_tree.changes(place, digest, manifest) == ["its content has another digest"]
