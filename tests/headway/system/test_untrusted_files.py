"""Files that a commit or a command has written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from headway.system.untrusted_files import NotReadable, read


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "outside").write_text("secret")
    root = tmp_path / "repository"
    root.mkdir()
    return root


def test_a_file(root: Path) -> None:
    (root / "a").write_bytes(b"content")
    assert read(root / "a", root, limit=7) == b"content"


def test_a_larger_file(root: Path) -> None:
    (root / "a").write_bytes(b"content")
    with pytest.raises(NotReadable, match="is larger than 0 KiB"):
        read(root / "a", root, limit=6)


@pytest.mark.parametrize("target", ["../outside", "/etc/passwd", "/dev/zero", "inside", "nothing"])
def test_a_link(root: Path, target: str) -> None:
    (root / "inside").write_text("x")
    (root / "link").symlink_to(target)
    with pytest.raises(NotReadable, match="is a symbolic link, which is not followed"):
        read(root / "link", root, limit=100)


def test_a_directory_that_is_a_link(root: Path) -> None:
    (root / "directory").symlink_to(root.parent)
    with pytest.raises(NotReadable, match="lies outside of the repository"):
        read(root / "directory" / "outside", root, limit=100)


def test_a_path_that_leads_out(root: Path) -> None:
    with pytest.raises(NotReadable, match="lies outside of the repository"):
        read(root / ".." / "outside", root, limit=100)


def test_a_pipe_is_not_waited_for(root: Path) -> None:
    os.mkfifo(root / "pipe")
    with pytest.raises(NotReadable, match="is not a regular file"):
        read(root / "pipe", root, limit=100)


def test_a_file_that_is_not_there(root: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read(root / "a", root, limit=100)
