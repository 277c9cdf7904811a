from __future__ import annotations

import os
from pathlib import Path

import pytest

from headway.system import directories

NOBODY = 65534


def test_read_only_directories_go_too(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    for parent in tmp_path.parents:
        if parent.owner() == tmp_path.owner() and "pytest" in str(parent):
            parent.chmod(0o755)
    pid = os.fork()
    if pid == 0:
        # Not as root, to whom permissions mean nothing.
        status = 1
        try:
            if os.getuid() == 0:
                os.setuid(NOBODY)
            tree = tmp_path / "tree"
            (tree / "a" / "b").mkdir(parents=True)
            (tree / "a" / "b" / "file").write_text("x")
            (tree / "a" / "b" / "file").chmod(0o444)
            (tree / "a" / "b").chmod(0)
            (tree / "a").chmod(0o555)
            tree.chmod(0o555)
            directories.remove(tree)
            status = int(tree.exists())
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_links_are_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o500)
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "link").symlink_to(outside)
    (tree / "nowhere").symlink_to("gone")
    directories.remove(tree)
    assert not tree.exists()
    assert outside.stat().st_mode & 0o777 == 0o500


@pytest.mark.parametrize("name", ["gone", "not/even/near"])
def test_missing_directory_is_not_an_error(tmp_path: Path, name: str) -> None:
    directories.remove(tmp_path / name)
