"""The removal list: what it names is in no row any more, and nothing else changes."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from corpus.pipeline.cli.main import cli
from corpus.pipeline.dedup import stage as dedup
from corpus.pipeline.documents import stage as ingest
from corpus.pipeline.download import stage as download
from corpus.pipeline.errors import WorkspaceError
from corpus.pipeline.inspect import lineage, verify
from corpus.pipeline.pack import stage as pack
from corpus.pipeline.storage import removals
from corpus.pipeline.storage.row_shards import open_rows
from corpus.pipeline.tokenizer import files
from corpus.pipeline.tokenizer import stage as tokenizer
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.ledger import Ledger, read_ledger
from tests.support.left_out import rows_of
from tests.support.records import baike, lines

NAME = "baike2018qa"


@pytest.fixture
def ready(workspace: Workspace, tmp_path: Path) -> Workspace:
    """Documents, some of them twice, a tokenizer and rows."""
    twice = baike(3, qid="again")
    source = tmp_path / "baike_qa_train.json"
    source.write_bytes(lines([*(baike(number) for number in range(60)), twice]))
    with workspace.writing("test"):
        download.run(download.DownloadConfig(dataset=NAME, source=str(tmp_path)), workspace)
        ingest.run(ingest.IngestConfig(dataset=NAME, workers=1), workspace)
        dedup.run(dedup.DedupConfig(near=False, workers=1), workspace)
        tokenizer.run(tokenizer.TokenizerConfig(vocab_size=400), workspace)
        pack.run(pack.PackConfig(dataset=NAME, seq_length=64, workers=1), workspace)
    return workspace


def corpus(workspace: Workspace, *arguments: str) -> Result:
    return CliRunner().invoke(cli, [*arguments, "--workspace", str(workspace.root)])


def excluding(workspace: Workspace, folder: Path, *names: str) -> Result:
    path = folder / "takedown.txt"
    path.write_text("# asked for by its author\n\n" + "\n".join(names) + "\n", encoding="utf-8")
    return corpus(workspace, "pack", "--seq-length", "64", "--exclude", str(path))


def ledger(workspace: Workspace) -> Ledger:
    found = read_ledger(workspace.packed(NAME))
    assert found
    return found


def ids(workspace: Workspace) -> list[str]:
    found: list[str] = pq.read_table(workspace.documents(NAME) / "part-00000.parquet")["id"].to_pylist()
    return found


def texts(workspace: Workspace) -> list[str]:
    """The documents in the rows, decoded and put together again."""
    model = files.load(workspace.tokenizer)
    pieces: dict[int, dict[int, list[int]]] = {}
    for row in open_rows(workspace.packed(NAME))["train"]:
        begin = 0
        for segment in row["segments"]:
            own = row["input_ids"][begin : begin + segment["length"]]
            pieces.setdefault(segment["document"], {})[segment["start"]] = own
            begin += segment["length"]
    joined = [[token for start in sorted(parts) for token in parts[start]] for _, parts in sorted(pieces.items())]
    return [model.decode(tokens) for tokens in joined]


def test_a_removed_document_is_in_no_row_and_all_others_are(ready: Workspace, tmp_path: Path) -> None:
    before, made, name = texts(ready), (ready.tokenizer / "tokenizer.json").read_bytes(), ids(ready)[7]
    documents = read_ledger(ready.documents(NAME))
    assert list(lineage.documents(ready, (NAME,), name=name))
    assert list(lineage.documents(ready, (NAME,), text="第7个问题"))
    result = excluding(ready, tmp_path, f"{NAME}:{name}")
    assert result.exit_code == 0, result.output
    assert "exclude.txt keeps out 1 documents" in " ".join(result.output.split())
    after = texts(ready)
    assert sorted(set(before) - set(after)) == [text for text in before if "第7个问题" in text]
    assert [text for text in before if text in set(after)] == after
    assert (ready.tokenizer / "tokenizer.json").read_bytes() == made
    assert read_ledger(ready.documents(NAME)) == documents
    assert ledger(ready).counts["left_out"] == {"exact_duplicate": 1, "excluded": 1}
    with pytest.raises(WorkspaceError, match="was removed"):
        list(lineage.documents(ready, (NAME,), name=name))
    assert not list(lineage.documents(ready, (NAME,), text="第7个问题"))
    verify.run(ready)
    assert "--exclude FILE" in (ready.packed(NAME) / "README.md").read_text(encoding="utf-8")
    assert corpus(ready, "trace", "--document", name).exit_code == 1
    assert name not in corpus(ready, "inspect", "--show", "kept", "-n", "200").output


def test_a_removal_stays_until_its_line_is_taken_out(ready: Workspace, tmp_path: Path) -> None:
    first = ledger(ready)
    excluding(ready, tmp_path, ids(ready)[7], f"{NAME}:{ids(ready)[9]}")
    removed = ledger(ready)
    assert removed.counts["left_out"]["excluded"] == 2
    again = corpus(ready, "pack", "--seq-length", "64")
    assert again.exit_code == 0
    assert ledger(ready) == removed
    assert (ready.root / removals.LIST).read_text().splitlines() == sorted([f"{NAME}:{ids(ready)[9]}", ids(ready)[7]])
    (ready.root / removals.LIST).unlink()
    result = corpus(ready, "pack", "--seq-length", "64")
    assert "excluded was" in " ".join(result.output.split())
    assert ledger(ready) == first


def test_comments_stay_where_they_are(ready: Workspace, tmp_path: Path) -> None:
    path, one, two = ready.root / removals.LIST, ids(ready)[7], ids(ready)[9]
    path.write_text(f"# asked for on paper\n\n{two}\n# the end")
    result = excluding(ready, tmp_path, one, "no-such-id")
    assert path.read_text() == f"# asked for on paper\n\n{two}\n# the end\n" + "".join(
        f"{name}\n" for name in sorted([one, "no-such-id"])
    )
    assert ledger(ready).counts["left_out"]["excluded"] == 2
    assert "stay in exclude.txt for documents to come: no-such-id" in " ".join(result.output.split())


def test_the_order_and_number_of_removals_do_not_matter(ready: Workspace, tmp_path: Path) -> None:
    one, two = ids(ready)[7], ids(ready)[9]
    excluding(ready, tmp_path, one)
    excluding(ready, tmp_path, two, two)
    slowly = ledger(ready)
    (ready.root / removals.LIST).unlink()
    excluding(ready, tmp_path, two, one)
    assert ledger(ready) == slowly


def test_ids_of_other_datasets_change_nothing_and_unknown_ones_are_named(ready: Workspace, tmp_path: Path) -> None:
    before = ledger(ready)
    result = excluding(ready, tmp_path, f"news2016zh:{ids(ready)[7]}", "no-such-id")
    assert result.exit_code == 0
    assert ledger(ready) == before
    assert "2 of 2 excluded ids are no documents of what was packed" in " ".join(result.output.split())


def test_a_duplicate_that_was_left_out_before_is_said_to_have_its_like(ready: Workspace, tmp_path: Path) -> None:
    before = ledger(ready)
    left = [row["id"] for row in rows_of(ready.dedup, NAME)]
    result = excluding(ready, tmp_path, *left)
    assert "1 of 1 excluded ids were left out before; the document that each is like may stay" in " ".join(
        result.output.split()
    )
    assert ledger(ready).outputs == before.outputs


def test_a_removed_document_is_not_shown_in_place_of_its_like(ready: Workspace, tmp_path: Path) -> None:
    shown = corpus(ready, "inspect", "--show", "left-out").output
    assert "第3个问题" in shown
    (kept,) = [name for name in ids(ready) if name.startswith("qid_3@")]
    excluding(ready, tmp_path, kept)
    assert "第3个问题" not in corpus(ready, "inspect", "--show", "left-out").output


def test_ids_with_blanks_around_them_are_found(ready: Workspace, tmp_path: Path) -> None:
    excluding(ready, tmp_path, f"{NAME}:  {ids(ready)[7]}\r")
    assert ledger(ready).counts["left_out"]["excluded"] == 1


def test_the_chat_form_honours_the_list(ready: Workspace, tmp_path: Path) -> None:
    excluding(ready, tmp_path, ids(ready)[7])
    assert corpus(ready, "pack", "--form", "chat", "--seq-length", "64").exit_code == 0
    chat = read_ledger(ready.packed(NAME, "chat"))
    assert chat
    assert chat.counts["left_out"]["excluded"] == 1


@pytest.mark.parametrize(("data", "words"), [(None, "is not there"), (b"\xff\xfe\x00", "cannot be read")])
def test_a_list_that_cannot_be_read_is_named(ready: Workspace, tmp_path: Path, data: bytes | None, words: str) -> None:
    path = tmp_path / "takedown.txt"
    if data is not None:
        path.write_bytes(data)
    result = corpus(ready, "pack", "--exclude", str(path))
    assert result.exit_code != 0
    assert words in str(result.exception)
    assert not (ready.root / removals.LIST).exists()


def test_rows_of_the_other_form_that_still_hold_it_are_named(ready: Workspace, tmp_path: Path) -> None:
    assert corpus(ready, "pack", "--form", "chat", "--seq-length", "64").exit_code == 0
    words = "rows do not follow exclude.txt yet: run `corpus pack --form chat --dataset baike2018qa`"
    assert words in " ".join(excluding(ready, tmp_path, ids(ready)[7]).output.split())
    assert words in " ".join(corpus(ready, "pack", "--seq-length", "64").output.split())
    assert words in " ".join(corpus(ready, "status").output.split())
    result = corpus(ready, "pack", "--form", "chat", "--seq-length", "64")
    assert "do not follow" not in result.output


def test_wrong_usage_leaves_the_list_as_it_is(ready: Workspace, tmp_path: Path) -> None:
    path = tmp_path / "takedown.txt"
    path.write_text(ids(ready)[7] + "\n", encoding="utf-8")
    assert corpus(ready, "pack", "--seq-length", "1", "--exclude", str(path)).exit_code == 2
    assert not (ready.root / removals.LIST).exists()
