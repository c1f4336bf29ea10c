"""An export is verified by its ledger: a bit in any of its files is found, and the command that is named mends it."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import pytest

from corpus.pipeline import export
from corpus.pipeline.errors import DamageError, WorkspaceError
from corpus.pipeline.inspect import verify
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.ledger import LEDGER, read_ledger
from tests.support import exported
from tests.support.command import corpus
from tests.support.documents import tree
from tests.support.records import Shared


@pytest.fixture(scope="session")
def laid(shared: Shared) -> Workspace:
    """The workspace to export from; to be read."""
    return Workspace(shared("exported", exported.lay) / "workspace")


@pytest.fixture
def place(laid: Workspace, tmp_path: Path) -> Path:
    """An export of some of it: data, lineage, an index, the tokenizer, a card."""
    config = export.ExportConfig(
        "megatron", tmp_path / "out", datasets=("baike2018qa",), splits=("validation",), workers=1
    )
    export.run(config, laid)
    return tmp_path / "out"


def flip(path: Path) -> bytes:
    """Change a bit in the middle; returns what was there."""
    data = path.read_bytes()
    half = len(data) // 2
    path.write_bytes(data[:half] + bytes([data[half] ^ 1]) + data[half + 1 :])
    return data


def test_a_flipped_bit_in_any_file_is_found(place: Path) -> None:
    ledger = read_ledger(place)
    assert ledger
    found = verify.run_export(place)
    assert (found.files, found.bytes) == (len(ledger.outputs), ledger.output_bytes)
    names = {output.path for output in ledger.outputs}
    assert {"baike2018qa_validation.bin", "lineage/baike2018qa-validation-00000.parquet"} < names
    for name in sorted({*names, LEDGER}):
        data = flip(place / name)
        with pytest.raises((DamageError, WorkspaceError), match=Path(name).name):
            verify.run_export(place)
        (place / name).write_bytes(data)
    (place / "mine.txt").touch()
    (place / "timings.json").unlink()  # as in a copy from the hub
    verify.run_export(place)
    (place / "lineage" / "baike2018qa-validation-00000.parquet").unlink()
    with pytest.raises(DamageError, match="is missing"):
        verify.run_export(place)


def test_the_command_that_is_named_mends_the_export(laid: Workspace, place: Path) -> None:
    whole = tree(place)
    assert "all as its ledger says" in corpus("verify", "--export", place, folder=place.parent).stdout
    shown = json.loads(corpus("verify", "--export", place, "--json", folder=place.parent).stdout)
    assert shown["stages"] == 1
    assert not (place.parent / "workspace").exists()
    flip(place / "baike2018qa_validation.bin")
    failure = corpus("verify", "--export", place, folder=place.parent, code=1).stderr
    assert "baike2018qa_validation.bin has other bytes" in failure
    command = failure.replace("\n", " ").split("`")[1]
    (place / "baike2018qa_validation.bin").unlink()
    corpus(*shlex.split(command)[1:], "--workspace", laid.root, folder=place.parent)
    assert tree(place) == whole


def test_what_is_no_export_is_named(laid: Workspace, tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError, match="holds what `tokenizer` made, not an export"):
        verify.run_export(laid.tokenizer)
    (tmp_path / "begun").mkdir()
    with pytest.raises(WorkspaceError, match="holds no finished export"):
        verify.run_export(tmp_path / "begun")
    shutil.rmtree(tmp_path / "begun")
    corpus("verify", "--export", tmp_path / "begun", folder=tmp_path, code=2)
