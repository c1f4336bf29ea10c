"""The run of a stage, with a toy stage: skipped, rerun with its reasons, interrupted, damaged, out of balance."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from corpus.pipeline.errors import BooksError, DiskError, WorkspaceError
from corpus.pipeline.workspace import StageRun, Workspace
from corpus.pipeline.workspace.files import open_for_owner, write_atomic
from corpus.pipeline.workspace.ledger import LEDGER, Report, fingerprint, read_ledger
from tests.support.documents import Listener, tree

WORDS = ("春天", "花开", "山前")


@pytest.fixture
def words(workspace: Workspace) -> Path:
    """The input of the toy stage: a file of words."""
    path = workspace.root / "words.txt"
    write_atomic(path, "\n".join(WORDS).encode())
    return path


class Stopping(Listener):
    """Presses Ctrl-C before the shard of a word is written, and keeps whether the ledger was there before each."""

    def __init__(self, folder: Path, before: str = "") -> None:
        super().__init__()
        self.folder, self.before = folder, before
        self.ledgers: list[bool] = []

    def begin(self, label: str, total: int | None, unit: str, done: int = 0) -> None:
        self.ledgers.append((self.folder / LEDGER).exists())
        if label == self.before:
            raise KeyboardInterrupt


def metadata(path: Path) -> tuple[str, Mapping[str, Any]] | None:
    """Fingerprint and counts that a shard of the toy stage carries."""
    try:
        values = json.loads(path.read_bytes())
        return values["fingerprint"], values["counts"]
    except (ValueError, KeyError):
        return None


def toy(workspace: Workspace, *, times: int = 2, lost: int = 0, progress: Listener | None = None) -> Report:
    """Write one shard for each word of the input, `times` over; count `lost` characters too few."""
    folder, source = workspace.root / "toy", workspace.root / "words.txt"
    progress = progress or Listener()
    stage = StageRun(
        workspace, folder, stage="toy", version=1, config={"times": times}, inputs=[workspace.file_digest(source)],
        progress=progress,
    )  # fmt: skip
    if report := stage.skipped():
        return report
    words = source.read_text().splitlines()
    kept = stage.keep_current(sorted(folder.glob("*.json")), metadata)
    characters = sum(counts["characters"] for counts in kept.values()) - lost
    for word in words:
        if f"{word}.json" not in kept:
            progress.begin(word, None, "words")
            counts = {"characters": times * len(word)}
            characters += counts["characters"]
            shard = {"fingerprint": stage.fingerprint, "counts": counts, "text": times * word}
            write_atomic(folder / f"{word}.json", json.dumps(shard).encode())

    def check_books() -> None:
        if characters != times * sum(map(len, words)):
            raise BooksError("characters are lost")

    return stage.finish(
        outputs=[folder / f"{word}.json" for word in words], counts={"characters": characters},
        check_books=check_books, timings={"workers": 1}, notes=["done"], details={"words": len(words)},
    )  # fmt: skip


def test_the_ledger_says_what_was_done(workspace: Workspace, words: Path) -> None:
    report = toy(workspace)
    ledger = read_ledger(workspace.root / "toy")
    assert ledger == report.ledger
    assert (ledger.stage, ledger.dataset, ledger.version) == ("toy", None, 1)
    assert (ledger.config, ledger.counts) == ({"times": 2}, {"characters": 12})
    assert ledger.inputs == [workspace.file_digest(words)]
    assert ledger.fingerprint == fingerprint("toy", 1, {"times": 2}, ledger.inputs)
    assert ledger.outputs == [workspace.file_digest(report.folder / f"{word}.json", report.folder) for word in WORDS]
    assert (report.skipped, report.reasons, report.notes, report.details) == (False, (), ("done",), {"words": 3})
    timings = json.loads((report.folder / "timings.json").read_bytes())
    assert timings.keys() == {"seconds", "workers", "ledger_sha256"}


def test_current_outputs_are_skipped(workspace: Workspace, words: Path) -> None:
    first = toy(workspace)
    before = {path: path.stat().st_mtime_ns for path in first.folder.iterdir()}
    (first.folder / ".flower.json.99.tmp").write_bytes(b"left by a killed writer")
    words.touch()
    listener = Listener()
    report = toy(workspace, progress=listener)
    assert (report.skipped, report.ledger, report.reasons, listener.said) == (True, first.ledger, (), [])
    assert {path: path.stat().st_mtime_ns for path in first.folder.iterdir()} == before


def test_a_rerun_says_why(workspace: Workspace, words: Path) -> None:
    toy(workspace)
    words.write_text("花开\n山前\n水边")
    listener = Listener()
    report = toy(workspace, times=3, progress=listener)
    assert report.reasons == ("times was 2 and is 3", "input words.txt has changed")
    assert listener.said == [f"rerunning toy because {reason}" for reason in report.reasons]
    assert sorted(tree(report.folder)) == sorted(["ledger.json", "花开.json", "山前.json", "水边.json"])


def test_a_rerun_names_the_dataset(workspace: Workspace) -> None:
    listener = Listener()
    for version in (1, 2):
        stage = StageRun(
            workspace, workspace.documents("demo"), stage="ingest", version=version, dataset="demo", config={},
            inputs=[], progress=listener,
        )  # fmt: skip
        assert stage.skipped() is None
        stage.begin()
        assert stage.finish(outputs=[], counts={}, check_books=None).ledger.dataset == "demo"
    assert listener.said == ["rerunning documents/demo because the stage's version was 1 and is 2"]


def test_there_is_no_ledger_while_outputs_change(workspace: Workspace, words: Path) -> None:
    folder = toy(workspace).folder
    listener = Stopping(folder)
    toy(workspace, times=3, progress=listener)
    assert listener.ledgers == [False] * 3
    assert read_ledger(folder) is not None


def test_an_interrupted_run_is_resumed(workspace: Workspace, words: Path, tmp_path: Path) -> None:
    folder = toy(workspace).folder
    whole = tree(folder)
    toy(workspace, times=3)
    with pytest.raises(KeyboardInterrupt):
        toy(workspace, progress=Stopping(folder, before="山前"))
    assert read_ledger(folder) is None
    assert sorted(tree(folder)) == sorted(["春天.json", "花开.json"])
    listener = Stopping(folder)
    report = toy(workspace, progress=listener)
    assert (report.skipped, report.reasons, listener.said) == (False, (), ["toy: 2 finished shards are kept"])
    assert len(listener.ledgers) == 1, "only the missing shard is made"
    assert tree(folder) == whole


def test_a_damaged_shard_is_not_kept_even_by_a_later_run(workspace: Workspace, words: Path) -> None:
    folder = toy(workspace).folder
    whole = tree(folder)
    shard = folder / "花开.json"
    shard.write_bytes(whole[shard.name].replace(b"5f00", b"5f01"))
    assert metadata(shard) == metadata(folder / "春天.json"), "the shard itself does not show it"
    (folder / "山前.json").unlink()
    with pytest.raises(KeyboardInterrupt):
        toy(workspace, progress=Stopping(folder, before="花开"))
    assert not (folder / LEDGER).exists()
    assert not shard.exists()
    toy(workspace)
    assert tree(folder) == whole


def test_damage_is_a_reason(workspace: Workspace, words: Path) -> None:
    folder = toy(workspace).folder
    whole = tree(folder)
    (folder / "花开.json").write_bytes(whole["花开.json"].replace(b"5f00", b"5f01"))
    (folder / "山前.json").unlink()
    (folder / "春天.json").write_bytes(b"{}")
    assert toy(workspace).reasons == (
        "output 春天.json has another size than its ledger says",
        "output 花开.json has other bytes than its ledger says",
        "output 山前.json is missing",
    )
    assert tree(folder) == whole


def test_a_ledger_cannot_delete_files_elsewhere(workspace: Workspace, words: Path, tmp_path: Path) -> None:
    folder = toy(workspace).folder
    outside = tmp_path / "outside.txt"
    outside.write_text("not an output")
    values = json.loads((folder / LEDGER).read_bytes())
    values["outputs"] += [{"path": path, "bytes": 1, "sha256": "0"} for path in ("../words.txt", str(outside))]
    (folder / LEDGER).write_text(json.dumps(values))
    assert len(toy(workspace).reasons) == 2
    assert words.exists()
    assert outside.exists()


def test_books_that_do_not_balance_leave_no_ledger(workspace: Workspace, words: Path) -> None:
    folder = toy(workspace).folder
    with pytest.raises(BooksError, match="characters are lost"):
        toy(workspace, times=3, lost=1)
    assert read_ledger(folder) is None
    assert toy(workspace, times=3).ledger.counts == {"characters": 18}


def opened(workspace: Workspace, **settings: Any) -> StageRun:
    config = {"times": 2} | settings
    return StageRun(
        workspace, workspace.root / "toy", stage="toy", version=1, config=config,
        inputs=[workspace.file_digest(workspace.root / "words.txt")],
    )  # fmt: skip


def test_no_step_can_be_left_out(workspace: Workspace, words: Path) -> None:
    def finish(stage: StageRun, outputs: Sequence[Path] = ()) -> None:
        stage.finish(outputs=outputs, counts={}, check_books=None)

    folder = toy(workspace).folder
    ledger = (folder / LEDGER).read_bytes()
    stale, current = opened(workspace, times=3), opened(workspace)
    assert (stale.is_current, current.is_current) == (False, True)
    with pytest.raises(RuntimeError, match=r"call skipped\(\) before begin\(\)"):
        stale.begin()
    with pytest.raises(RuntimeError, match=r"call skipped\(\) before begin\(\)"):
        stale.keep_current([], metadata)
    assert stale.skipped() is None
    with pytest.raises(RuntimeError, match=r"call begin\(\) before finish\(\)"):
        finish(stale)
    assert current.skipped() is not None
    with pytest.raises(RuntimeError, match="return the report"):
        current.begin()
    assert (folder / LEDGER).read_bytes() == ledger
    stale.begin()
    assert not (folder / LEDGER).exists()
    finish(stale)


def test_a_stage_may_add_reasons_and_compare_by_size(workspace: Workspace, words: Path) -> None:
    toy(workspace)
    stage = opened(workspace)
    stage.reasons.append("the source has moved")
    assert not stage.is_current
    assert stage.skipped() is None
    shard = workspace.root / "toy" / "花开.json"
    shard.write_bytes(shard.read_bytes().replace(b"5f00", b"5f01"))
    by_size = StageRun(
        workspace, stage.folder, stage="toy", version=1, config=stage.config, inputs=stage.inputs, by_size=True
    )
    assert by_size.is_current
    assert not opened(workspace).is_current


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"schema": "left out"}, "`schema` is missing"),
        ({"schema": 2}, "`schema` is not 1"),
        ({"more": 1}, "`more` is unknown"),
        ({"counts": []}, "`counts` is not an object"),
        ({"inputs": [{"path": "a"}]}, '`inputs` holds {"path": "a"}, which is not a file\'s digest'),
        ("[]", "expected an object, found list"),
        ("{", "Expecting property name"),
    ],
)
def test_a_broken_ledger_is_named_with_what_is_wrong(
    workspace: Workspace, words: Path, change: dict[str, Any] | str, says: str
) -> None:
    path = toy(workspace).folder / LEDGER
    if isinstance(change, dict):
        values = json.loads(path.read_bytes()) | change
        change = json.dumps({key: value for key, value in values.items() if value != "left out"})
    path.write_text(change)
    with pytest.raises(WorkspaceError) as caught:
        toy(workspace)
    assert caught.value.message.startswith(f"{path} is not a ledger that this version")
    assert says in caught.value.message
    assert "Delete this file and run" in caught.value.hint


def test_a_file_where_the_folder_should_be(workspace: Workspace, words: Path) -> None:
    (workspace.root / "toy").write_text("")
    with pytest.raises((DiskError, WorkspaceError), match="Not a directory") as caught:
        toy(workspace)
    assert caught.value.hint


def test_a_partial_file_is_for_its_owner(tmp_path: Path) -> None:
    with open(tmp_path / "partial", "wb", opener=open_for_owner):
        assert (tmp_path / "partial").stat().st_mode & 0o777 == 0o600
