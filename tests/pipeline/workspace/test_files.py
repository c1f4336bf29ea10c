"""Partial files: their names, and which of them are removed."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

from corpus.pipeline.workspace.files import aside, remove_leftovers, scratch


def test_no_two_writers_share_a_name(tmp_path: Path) -> None:
    """Neither of one process, nor of two with the same number on hosts of the same name."""
    names = set[str]()
    for _ in range(20):
        with aside(tmp_path / "part-00000.parquet") as file, scratch(tmp_path / "part-00000.parquet") as other:
            names |= {Path(file.name).name, other.name}
    assert len(names) == 40
    assert all(name.startswith(".part-00000.parquet.") and name.endswith(".tmp") for name in names)
    assert all(f"-{os.getpid()}-" in name for name in names)


def test_leftovers_of_this_host_and_old_ones_are_removed(tmp_path: Path) -> None:
    with aside(tmp_path / "left.json") as file:
        file.write(b"half")
    own = Path(file.name)
    another = own.name.replace(f".{socket.gethostname().replace('-', '_').replace('.', '_')[:32]}-", ".node7-")
    assert another != own.name
    live, old, before = (tmp_path / "deep" / name for name in (another, f".x{another}", ".left.json.77.tmp"))
    live.parent.mkdir()
    for path in (live, old, before):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 7200,) * 2)
    remove_leftovers(tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [live]
