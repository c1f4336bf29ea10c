"""Receipts: what a piece has written, and when a rerun may believe it."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from corpus.pipeline.workspace import StageRun, Workspace
from corpus.pipeline.workspace.files import write_atomic
from corpus.pipeline.workspace.ledger import Report
from corpus.pipeline.workspace.receipts import FOLDER, PieceWriter, Receipt, read_all
from tests.support.documents import tree

WORDS = ("春天", "花开", "山前")


class Counting(Workspace):
    """Notes which files are hashed."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.hashed: list[str] = []

    def digest(self, path: Path) -> str:
        self.hashed.append(path.name)
        return super().digest(path)


def write(folder: Path, work: str, word: str) -> Receipt:
    """A piece of the toy stage: a shard of a word, which carries its fingerprint."""
    files = PieceWriter(folder, work, word)
    with files.output(f"{word}.json") as out:
        out.write(json.dumps({"fingerprint": work, "counts": {"characters": len(word)}, "text": word}).encode())
        out.groups.append(1)
    return files.finish(Counter(characters=len(word)))


class Toy:
    """A stage with a piece for each word, that is killed after some of them."""

    def __init__(self, root: Path) -> None:
        self.root, self.folder = root, root / "toy"
        self.workspace = Counting(root)
        self.opened: list[str] = []
        """Shards whose metadata were read in the last run."""
        self.made: list[str] = []
        """Words whose shards were made in the last run."""

    def metadata(self, path: Path) -> tuple[str, Mapping[str, Any]] | None:
        self.opened.append(path.stem)
        try:
            values = json.loads(path.read_bytes())
        except ValueError:
            return None
        return values["fingerprint"], values["counts"]

    def run(self, pieces: int = len(WORDS), version: int = 1) -> Report:
        """Run in a new process, as it were; a KeyboardInterrupt after so many pieces."""
        self.workspace = Counting(self.root)
        self.opened, self.made = [], []
        stage = StageRun(self.workspace, self.folder, stage="toy", version=version, config={}, inputs=[])
        if report := stage.skipped():
            return report
        kept = stage.keep_current(sorted(self.folder.glob("*.json")), self.metadata)
        for word in WORDS:
            if f"{word}.json" not in kept:
                if len(self.made) == pieces:
                    raise KeyboardInterrupt
                stage.take(write(self.folder, stage.fingerprint, word))
                self.made.append(word)
        outputs = [self.folder / f"{word}.json" for word in WORDS]
        report = stage.finish(outputs=outputs, counts={}, check_books=None)
        self.workspace.save_digests()
        return report


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    (tmp_path / "workspace").mkdir()
    return Toy(tmp_path / "workspace")


@pytest.fixture
def killed(toy: Toy) -> Toy:
    """The stage after a run that was killed when it had made two pieces of three."""
    with pytest.raises(KeyboardInterrupt):
        toy.run(pieces=2)
    assert len(read_all(toy.folder)) == 2
    return toy


def whole(tmp_path: Path) -> dict[str, bytes]:
    """What an undisturbed run leaves."""
    toy = Toy(tmp_path / "undisturbed")
    toy.run()
    return tree(toy.folder)


def test_a_receipt_tells_what_was_written(tmp_path: Path) -> None:
    made = write(tmp_path, "w" * 64, "春天")
    data = (tmp_path / "春天.json").read_bytes()
    (output,) = made.outputs
    assert (output.path, output.bytes, output.sha256) == ("春天.json", len(data), hashlib.sha256(data).hexdigest())
    assert output.groups == (1,)
    assert [found.receipt for found in read_all(tmp_path)] == [made]
    assert str(tmp_path).encode() not in (tmp_path / made.name).read_bytes()


def test_two_writers_of_a_piece_write_the_same_bytes(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        files = PieceWriter(tmp_path / folder, "w", "00000")
        for name in ("b", "a") if folder == "one" else ("a", "b"):
            with files.output(name) as out:
                out.write(name.encode())
        files.finish({"x": 1, "y": 2} if folder == "one" else {"y": 2, "x": 1})
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


def test_a_file_that_is_not_as_it_was_written_is_no_receipt(tmp_path: Path) -> None:
    path = tmp_path / write(tmp_path, "w", "花开").name
    data = path.read_bytes()
    for torn in (
        b"",
        data[:1],
        data[: len(data) // 2],
        data[:-1],
        data.replace(b'"characters": 2', b'"characters": 3'),
    ):
        assert torn != data
        path.write_bytes(torn)
        assert read_all(tmp_path) == []
    path.write_bytes(data)
    assert len(read_all(tmp_path)) == 1
    path.rename(path.with_name("山前.json"))  # another piece's name
    assert read_all(tmp_path) == []


def test_the_ledger_is_that_of_hashing_and_no_output_is_read(toy: Toy) -> None:
    report = toy.run()
    assert (toy.opened, toy.workspace.hashed) == ([], [])
    fresh = Workspace(toy.root / "elsewhere")
    assert report.ledger.outputs == [fresh.file_digest(toy.folder / f"{word}.json", toy.folder) for word in WORDS]
    assert not (toy.folder / FOLDER).exists()
    assert all(toy.workspace.knows(toy.folder / f"{word}.json") for word in WORDS)


def test_a_rerun_believes_receipts_and_opens_no_shard(killed: Toy, tmp_path: Path) -> None:
    killed.run()
    assert (killed.opened, killed.made, killed.workspace.hashed) == ([], ["山前"], [])
    assert tree(killed.folder) == whole(tmp_path)


def test_a_shard_without_a_receipt_is_opened(killed: Toy, tmp_path: Path) -> None:
    (killed.folder / read_all(killed.folder)[0].receipt.name).unlink()
    killed.run()
    assert (killed.opened, killed.made) == (["春天"], ["山前"])
    assert tree(killed.folder) == whole(tmp_path)


def test_a_torn_receipt_is_none(killed: Toy, tmp_path: Path) -> None:
    path = killed.folder / read_all(killed.folder)[0].receipt.name
    path.write_bytes(path.read_bytes()[:40])
    killed.run()
    assert (killed.opened, killed.made) == (["春天"], ["山前"])
    assert tree(killed.folder) == whole(tmp_path)


def test_a_receipt_without_its_shard_is_made_again(killed: Toy, tmp_path: Path) -> None:
    (killed.folder / "春天.json").unlink()
    killed.run()
    assert (killed.opened, killed.made) == ([], ["春天", "山前"])
    assert tree(killed.folder) == whole(tmp_path)


def test_a_receipt_of_other_work_is_not_believed(killed: Toy) -> None:
    killed.run(version=2)
    assert killed.made == list(WORDS)
    assert not (killed.folder / FOLDER).exists()


@pytest.mark.parametrize("changed", ["花落", "花开花"])
def test_a_shard_that_was_changed_since_its_receipt_is_made_again(killed: Toy, tmp_path: Path, changed: str) -> None:
    """Neither its own metadata, nor its old date, makes it pass."""
    path = killed.folder / "花开.json"
    before = path.stat()
    text = path.read_text().replace(json.dumps("花开"), json.dumps(changed))
    path.write_text(text)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert killed.metadata(path) is not None
    killed.run()
    assert killed.made == ["花开", "山前"]
    assert tree(killed.folder) == whole(tmp_path)


def test_a_copy_of_a_shard_is_hashed_and_kept(killed: Toy, tmp_path: Path) -> None:
    path = killed.folder / "花开.json"
    write_atomic(path, path.read_bytes())
    killed.run()
    assert (killed.opened, killed.made, killed.workspace.hashed) == ([], ["山前"], ["花开.json"])
    assert tree(killed.folder) == whole(tmp_path)


def test_a_run_killed_after_its_ledger_leaves_no_receipts(toy: Toy) -> None:
    report = toy.run()
    write(toy.folder, report.ledger.fingerprint, "春天")  # as a late writer does
    assert toy.run().skipped
    assert not (toy.folder / FOLDER).exists()
