"""Readers name a damaged shard, whatever the damage, and say how it is rebuilt."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from corpus.pipeline import workflows
from corpus.pipeline.errors import DamageError
from corpus.pipeline.inspect import examples, lineage
from corpus.pipeline.report import build
from corpus.pipeline.tokenizer import stage as tokenizer
from corpus.pipeline.workspace.layout import Workspace
from tests.support import damage
from tests.support.documents import Listener

Reader = Callable[[Workspace], object]
DOCUMENTS: dict[str, Reader] = {
    "used_documents": lambda workspace: list(workflows.used_documents(workspace, "demo")),
    "trace a document": lambda workspace: list(lineage.documents(workspace, ("demo",), text="。")),
    "inspect": lambda workspace: list(examples.sample(workspace, ["demo"], state="kept")),
    "tokenizer": lambda workspace: tokenizer.run(tokenizer.TokenizerConfig(vocab_size=300), workspace),
    "pack": lambda workspace: workflows.pack(workspace, datasets=["demo"]),
}
ROWS: dict[str, Reader] = {
    "trace a row": lambda workspace: lineage.row(workspace, "demo", "train", 1),
}
OTHERS: dict[str, tuple[str, Reader]] = {
    "a list": ("dedup/lists/demo.json", DOCUMENTS["used_documents"]),
    "dropped records": (
        "documents/demo/rejected/part-00000.parquet",
        lambda workspace: list(lineage.rejected(workspace, ("demo",), "too_short")),
    ),
    "the tokenizer": ("tokenizer/tokenizer.json", ROWS["trace a row"]),
}


@pytest.fixture(scope="module")
def copy(demo: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The demo's workspace without its model."""
    root = tmp_path_factory.mktemp("damaged") / "workspace"
    shutil.copytree(demo.root, root, ignore=shutil.ignore_patterns("models", ".digests.json", ".lock*"))
    return Workspace(root)


@pytest.fixture
def restored(copy: Workspace) -> Iterator[Callable[[str], Path]]:
    """Gives a file to damage, and puts its bytes back."""
    saved: dict[Path, bytes] = {}

    def give(name: str) -> Path:
        path = copy.root / name
        saved[path] = path.read_bytes()
        return path

    yield give
    for path, data in saved.items():
        path.write_bytes(data)


def refused(workspace: Workspace, path: Path, read: Reader) -> str:
    """The hint of the DamageError that names the path and what its ledger says."""
    with pytest.raises(DamageError) as caught:
        read(Workspace(workspace.root))
    assert caught.value.message.startswith(f"{path} has other bytes than its ledger says (SHA-256 ")
    return caught.value.hint


@pytest.mark.parametrize("harm", damage.KINDS, ids=lambda harm: harm.__name__)
@pytest.mark.parametrize("reader", DOCUMENTS)
def test_documents(copy: Workspace, restored: Callable[[str], Path], harm: Callable[[Path], None], reader: str) -> None:
    path = restored("documents/demo/part-00000.parquet")
    harm(path)
    hint = "Delete it and run `corpus ingest --dataset demo`: only missing files are rebuilt."
    assert refused(copy, path, DOCUMENTS[reader]) == hint


@pytest.mark.parametrize("harm", damage.KINDS, ids=lambda harm: harm.__name__)
@pytest.mark.parametrize("reader", ROWS)
def test_rows(copy: Workspace, restored: Callable[[str], Path], harm: Callable[[Path], None], reader: str) -> None:
    path = restored("packed/demo/train/data-00000.arrow")
    harm(path)
    hint = "Delete it and run `corpus pack --dataset demo --seq-length 256`: only missing files are rebuilt."
    assert refused(copy, path, ROWS[reader]) == hint


@pytest.mark.parametrize("harm", damage.KINDS, ids=lambda harm: harm.__name__)
@pytest.mark.parametrize("name", ["documents/demo/part-00000.parquet", "packed/demo/train/data-00000.arrow"])
def test_the_report_names_it_and_goes_on(
    copy: Workspace, restored: Callable[[str], Path], harm: Callable[[Path], None], name: str
) -> None:
    harm(restored(name))
    listener = Listener()
    assert build.run(Workspace(copy.root), progress=listener).is_file()
    assert any(f"{name} has other bytes than its ledger says" in said for said in listener.said)


@pytest.mark.parametrize("name", OTHERS)
def test_other_files(copy: Workspace, restored: Callable[[str], Path], name: str) -> None:
    file, read = OTHERS[name]
    path = restored(file)
    damage.edit(path)
    assert "and run `corpus " in refused(copy, path, read)


def test_a_shard_that_no_ledger_lists_is_not_read(copy: Workspace) -> None:
    path = copy.documents("demo") / "part-00099.parquet"
    shutil.copy(copy.documents("demo") / "part-00000.parquet", path)
    try:
        with pytest.raises(DamageError, match=r"part-00099\.parquet is not in the ledger of documents/demo"):
            list(lineage.documents(Workspace(copy.root), ("demo",), text="no document holds this"))
    finally:
        path.unlink()
