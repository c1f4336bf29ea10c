"""Lists of what is left out: a file for each documents shard, of which a worker gets those of its own."""

from __future__ import annotations

import pickle
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from corpus.pipeline.errors import DamageError, WorkspaceError
from corpus.pipeline.storage import removal_lists, selection
from corpus.pipeline.storage.document_shards import REMOVED_SCHEMA, document_ref, part_name
from corpus.pipeline.storage.removal_lists import index_path, list_path
from corpus.pipeline.workspace.files import sha256_file
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.ledger import LEDGER, read_ledger, write_ledger
from tests.benchmarks.duplicates import lay_documents
from tests.support.copies import NOODLES, RAIN, make, rows
from tests.support.left_out import documents_out, rows_of, spans_out

NAME = "wiki2019zh"


def table(*documents: tuple[int, int, int, int, bool]) -> pa.Table:
    """Rows of a list from (shard, line, start, end, whole)."""
    return pa.Table.from_pylist(
        [
            {
                "document": document_ref(shard, line), "id": f"{shard} {line}", "split": "train",
                "reason": "exact_duplicate" if whole else "contaminated", "detail": "", "start": start, "end": end,
                "whole": whole,
            }
            for shard, line, start, end, whole in documents
        ],
        REMOVED_SCHEMA,
    )  # fmt: skip


def test_each_shard_has_its_own_list_and_the_index_their_sums(tmp_path: Path) -> None:
    every = table((0, 1, 0, 10, True), (0, 4, 0, 20, True), (3, 0, 5, 9, False), (3, 0, 12, 13, False))
    written = removal_lists.write(tmp_path, NAME, removal_lists.by_shard(every), sha256_file)
    paths = [list_path(tmp_path, NAME, part_name(number)) for number in (0, 3)]
    assert written == [index_path(tmp_path, NAME), *paths]
    assert rows_of(tmp_path, NAME) == every.to_pylist()
    index = removal_lists.read_index(index_path(tmp_path, NAME))
    assert (index.documents, index.characters) == ({"train": 2}, {"train": 35})
    assert index.reasons == {"exact_duplicate": 2, "contaminated": 2}
    assert index.shards == {path.name: sha256_file(path) for path in paths}
    removal_lists.write(tmp_path, NAME, [(3, every.slice(2)), (4, every.slice(0, 0))], sha256_file)
    assert sorted(paths[0].parent.iterdir()) == [paths[1]]
    removal_lists.write(tmp_path, NAME, [], sha256_file)
    assert rows_of(tmp_path, NAME) == []


def test_a_worker_gets_the_lists_of_its_shards_alone(workspace: Workspace) -> None:
    lay_documents(workspace, NAME, [rows(RAIN, NOODLES, *[RAIN] * 3), *[rows(*[RAIN] * 40)] * 30])
    make(workspace)
    chosen = selection.load(workspace, NAME)
    path = workspace.documents(NAME) / part_name(7)
    own = chosen.of([path])
    assert own.lists == {7: [list_path(workspace.dedup, NAME, path.name)]}
    assert len(pickle.dumps(own)) < 1000
    assert documents_out(own) == [document_ref(7, line) for line in range(40)]
    for other in workspace.dedup.glob("lists/*/part-*"):
        if other.name != path.name:
            other.unlink()
    assert [len(lines) for _, lines, _ in selection.read_selected(path, ["id"], own)] == [0]


def test_lists_of_an_earlier_version_are_named_and_made_again(workspace: Workspace) -> None:
    lay_documents(workspace, NAME, [rows(RAIN, RAIN)])
    make(workspace)
    folder = workspace.dedup
    before = read_ledger(folder)
    assert before is not None
    old = folder / f"{NAME}.parquet"
    pq.write_table(table((0, 1, 0, len(RAIN), True)), old)
    for path in [index_path(folder, NAME), list_path(folder, NAME, part_name(0)), folder / LEDGER]:
        path.unlink()
    values = {name: getattr(before, name) for name in before.__slots__}
    outputs = [workspace.file_digest(path, folder) for path in (folder / "clusters.parquet", old)]
    write_ledger(folder, type(before)(**values | {"version": 2, "outputs": outputs}), {})
    with pytest.raises(WorkspaceError, match=r"dedup/ holds the lists of wiki2019zh as an earlier version") as caught:
        selection.load(workspace, NAME)
    assert caught.value.hint == "Run `corpus dedup` again."
    assert make(workspace).reasons == ("the stage's version was 2 and is 3",)
    assert not old.exists()
    assert documents_out(selection.load(workspace, NAME)) == [1]


def test_a_damaged_index_or_list_is_named(tmp_path: Path) -> None:
    removal_lists.write(tmp_path, NAME, [(0, table((0, 1, 0, 10, True)))], sha256_file)
    index, path = index_path(tmp_path, NAME), list_path(tmp_path, NAME, part_name(0))
    for text in ("", "[]", "{}", '{"documents": 1, "characters": {}, "reasons": {}, "shards": {}}'):
        index.write_text(text)
        with pytest.raises(DamageError, match=r"wiki2019zh\.json cannot be read"):
            removal_lists.read_index(index)
    path.write_bytes(b"PAR1")
    with pytest.raises(DamageError, match="part-00000"):
        removal_lists.read_list(path)


def test_a_document_in_lists_that_do_not_know_of_each_other_counts_once(workspace: Workspace) -> None:
    lay_documents(workspace, NAME, [rows(RAIN, RAIN, NOODLES, NOODLES)])
    make(workspace)  # leaves out 1 and 3
    folder, size = workspace.decontaminate, len(RAIN)
    every = table((0, 0, 0, size, True), (0, 1, 0, size, True), (0, 2, 1, 4, False), (0, 3, 1, 4, False))
    documents = workspace.file_digest(workspace.documents(NAME) / LEDGER)
    written = removal_lists.write(folder, NAME, removal_lists.by_shard(every), workspace.digest)
    before = read_ledger(workspace.dedup)
    assert before is not None
    values = {name: getattr(before, name) for name in before.__slots__}
    outputs = workspace.file_digests(written, folder)
    write_ledger(folder, type(before)(**values | {"inputs": [documents], "outputs": outputs}), {})
    chosen = selection.load(workspace, NAME)
    assert chosen.documents == {"train": 3}
    assert chosen.characters == {"train": 2 * size + len(NOODLES) + 3}
    assert chosen.reasons == {"exact_duplicate": 3, "contaminated": 1}
    assert (documents_out(chosen), spans_out(chosen)) == ([0, 1, 3], {2: [(1, 4)]})
