"""Outputs are hashed once, also by commands that only read."""

from __future__ import annotations

import json

import pytest

from corpus.pipeline.errors import DamageError
from corpus.pipeline.progress import Progress
from corpus.pipeline.workspace import checked, layout
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.ledger import FileDigest


def outputs(workspace: Workspace, *names: str) -> list[FileDigest]:
    """Files of `raw/demo`, as their ledger would list them."""
    folder = workspace.raw("demo")
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_text(name)
    return [Workspace(workspace.root).file_digest(folder / name, folder) for name in names]


def test_what_is_wrong_is_said(workspace: Workspace) -> None:
    one, two = outputs(workspace, "one", "two")
    folder = workspace.raw("demo")
    checked.check_all(workspace, folder, [one, two])
    (folder / "two").write_text("TWO")
    with pytest.raises(DamageError, match=r"two has other bytes than its ledger says \(SHA-256 .*, not .*\)"):
        checked.check_all(workspace, folder, [one, two])
    (folder / "one").write_text("three")
    with pytest.raises(DamageError, match="one has 5 bytes, its ledger says 3") as caught:
        checked.check_all(workspace, folder, [one, two])
    assert caught.value.hint.startswith("Delete it and run `corpus download --dataset demo`")
    (folder / "one").unlink()
    with pytest.raises(DamageError, match="one is missing") as caught:
        checked.check_all(workspace, folder, [one, two])
    assert caught.value.hint == "Run `corpus download --dataset demo` to rebuild it."


def test_readers_share_their_digests(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    found, folder = outputs(workspace, "one", "two"), workspace.raw("demo")
    first, second = Workspace(workspace.root), Workspace(workspace.root)
    assert not first.knows(folder / "one")
    assert not second.knows(folder / "two")
    checked.check_all(first, folder, found[:1])
    first.save_digests()
    checked.check_all(second, folder, found[1:])
    second.save_digests()  # and keeps what the first one saved meanwhile
    monkeypatch.setattr(layout, "sha256_file", lambda path: pytest.fail(f"{path} is hashed again"))
    checked.check_all(Workspace(workspace.root), folder, found)
    assert {path.name for path in workspace.root.iterdir()} == {"raw", ".digests.json"}


def test_nothing_new_is_nothing_to_save(workspace: Workspace) -> None:
    found, folder = outputs(workspace, "one"), workspace.raw("demo")
    checked.check_all(workspace, folder, found)
    workspace.save_digests()
    before = (workspace.root / ".digests.json").stat()
    again = Workspace(workspace.root)
    checked.check_all(again, folder, found)
    again.save_digests()
    assert (workspace.root / ".digests.json").stat() == before
    assert list(json.loads((workspace.root / ".digests.json").read_bytes())) == ["raw/demo/one"]


def test_a_cache_that_cannot_be_written_is_no_failure(workspace: Workspace) -> None:
    found = outputs(workspace, "one")
    (workspace.root / ".digests.json").mkdir()
    checked.check_all(workspace, workspace.raw("demo"), found)
    workspace.save_digests()
    assert [path.name for path in workspace.root.glob(".*")] == [".digests.json"]


def test_a_bar_is_shown_where_hashing_takes_time(workspace: Workspace) -> None:
    seen: list[object] = []

    class Bars(Progress):
        def begin(self, label: str, total: int | None, unit: str, done: int = 0) -> None:
            seen.append((label, total, unit))

        def advance(self, amount: int) -> None:
            seen.append(amount)

    found, folder = outputs(workspace, "one", "three"), workspace.raw("demo")
    checked.check_all(Workspace(workspace.root), folder, found, Bars(), noticeable=9)
    assert not seen
    checked.check_all(workspace, folder, found, Bars(), noticeable=8)
    assert seen == [("checking raw/demo", 8, "B"), 3, 5]
    checked.check_all(workspace, folder, found, Bars(), noticeable=8)
    assert len(seen) == 3
