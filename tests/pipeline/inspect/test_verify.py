"""A flipped bit anywhere is found; a row leads back to its records."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest

from corpus.pipeline import quality
from corpus.pipeline.decontaminate import config
from corpus.pipeline.decontaminate import stage as decontaminate
from corpus.pipeline.dedup import stage as dedup
from corpus.pipeline.documents import stage as ingest
from corpus.pipeline.download import stage as download
from corpus.pipeline.errors import DamageError, WorkspaceError
from corpus.pipeline.inspect import lineage, verify
from corpus.pipeline.pack import stage as pack
from corpus.pipeline.tokenizer import stage as tokenizer
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.ledger import read_ledger, write_ledger
from tests.support.command import corpus
from tests.support.documents import TRAIN, VALID, tree
from tests.support.left_out import rows_of
from tests.support.records import LayRaw, baike, baike_near, lines
from tests.support.scored import random_model


@pytest.fixture
def finished(workspace: Workspace, tmp_path: Path) -> Workspace:
    """A workspace with everything up to rows."""
    source = tmp_path / "source"
    source.mkdir()
    noisy = baike(500, title="怎样洗杯子？", answer="<p>用温水。</p>\r\n\r\n\r\n　　再擦干，放在１２号架上。")
    (source / TRAIN).write_bytes(
        lines([noisy, *map(baike, range(299)), baike_near(299, 7), baike(900, answer=""), baike(901, answer="")])
    )
    (source / VALID).write_bytes(lines([baike(n) for n in range(300, 330)]))
    with workspace.writing("test"):
        download.run(download.DownloadConfig(dataset="baike2018qa", source=str(source)), workspace)
        ingest.run(ingest.IngestConfig(dataset="baike2018qa", workers=1, piece_bytes=20_000), workspace)
        dedup.run(dedup.DedupConfig(workers=1), workspace)
        (tmp_path / "exam.jsonl").write_bytes(lines([{"question": "这里没有一道题和上面的文档有关，一道也没有。"}]))
        decontaminate.run(config.DecontaminateConfig(against=(tmp_path / "exam.jsonl",), workers=1), workspace)
        quality.run(quality.QualityConfig(model=random_model(tmp_path / "given"), alpha=1e-6, workers=1), workspace)
        tokenizer.run(tokenizer.TokenizerConfig(vocab_size=320), workspace)
        pack.run(pack.PackConfig(dataset="baike2018qa", workers=1, seq_length=128), workspace)
        pack.run(pack.PackConfig(dataset="baike2018qa", form="chat", workers=1, seq_length=128), workspace)
    return workspace


def test_a_good_workspace_verifies(finished: Workspace) -> None:
    found = verify.run(finished)
    assert found.stages == 8
    assert found.files > 8
    assert "as their ledgers say" in corpus("verify", folder=finished.root.parent).stdout


def test_a_flipped_bit_in_any_file_is_found(finished: Workspace) -> None:
    chance = random.Random(5)
    files = [
        path
        for area in ("raw", "documents", "dedup", "decontaminate", "quality", "tokenizer", "packed", "chat")
        for path in (finished.root / area).rglob("*")
        if path.is_file() and not {"keys", "bands"} & {*path.parts}  # these are made again when they are damaged
    ]
    checked = [path for path in files if path.name not in {"origin.json", "timings.json"}]
    assert len(checked) > 12
    for path in checked:
        data = path.read_bytes()
        place = chance.randrange(len(data))
        path.write_bytes(data[:place] + bytes([data[place] ^ 1 << chance.randrange(8)]) + data[place + 1 :])
        with pytest.raises((DamageError, WorkspaceError)) as caught:
            verify.run(finished)
        assert path.name in caught.value.message
        assert caught.value.hint
        path.write_bytes(data)
    verify.run(finished)


def test_a_bit_of_a_ledger_is_found_wherever_it_flips(finished: Workspace) -> None:
    path = finished.packed("baike2018qa", "chat") / "ledger.json"
    data = path.read_bytes()
    for place in range(0, len(data), 23):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        with pytest.raises((DamageError, WorkspaceError)):
            verify.run(finished)
    path.write_bytes(data)


def test_the_hint_repairs_one_shard_only(finished: Workspace) -> None:
    folder = finished.documents("baike2018qa")
    whole = tree(folder)
    bad = folder / "part-00001.parquet"
    data = bytearray(bad.read_bytes())
    data[len(data) // 2] ^= 4
    bad.write_bytes(data)
    done = corpus("verify", folder=finished.root.parent, code=1)
    assert "part-00001.parquet" in done.stderr
    assert "corpus ingest --dataset baike2018qa" in done.stderr
    bad.unlink()
    others = {path: path.stat().st_mtime_ns for path in folder.glob("part-*.parquet")}
    with finished.writing("test"):
        ingest.run(ingest.IngestConfig(dataset="baike2018qa", workers=1, piece_bytes=20_000), finished)
    assert tree(folder) == whole
    assert all(path.stat().st_mtime_ns == before for path, before in others.items())
    verify.run(finished)


def test_the_hint_repairs_rows_of_the_form_that_is_damaged(finished: Workspace) -> None:
    folder = finished.packed("baike2018qa", "chat")
    whole = tree(folder)
    bad = folder / "train" / "data-00000.arrow"
    bad.write_bytes(bad.read_bytes()[:-1] + b"x")
    assert (
        "corpus pack --form chat --dataset baike2018qa" in corpus("verify", folder=finished.root.parent, code=1).stderr
    )
    bad.unlink()
    corpus("pack", "--form", "chat", "--dataset", "baike2018qa", "--seq-length", "128", folder=finished.root.parent)
    assert {name: data for name, data in tree(folder).items() if name in whole} == whole  # the cards are new
    verify.run(finished)


@pytest.mark.parametrize("form", ["text", "chat"])
def test_counts_that_are_not_those_of_the_shards_are_found(finished: Workspace, form: str) -> None:
    folder = finished.packed("baike2018qa", form)
    ledger = read_ledger(folder)
    assert ledger
    ledger.counts["splits"]["train"]["documents"] += 1
    write_ledger(folder, ledger, {})
    with pytest.raises(DamageError, match="does not agree with the counts in the shards of train"):
        verify.run(finished)


def test_books_that_disagree_are_found(finished: Workspace) -> None:
    shutil.rmtree(finished.tokenizer)
    tokenizer.run(tokenizer.TokenizerConfig(vocab_size=330), finished)
    with pytest.raises(DamageError, match=r"was made from another tokenizer/tokenizer\.json"):
        verify.run(finished)


def test_every_row_leads_back_to_its_records(finished: Workspace) -> None:
    rows = json.loads((finished.packed("baike2018qa") / "ledger.json").read_text())["counts"]["splits"]["train"]["rows"]
    seen: set[str] = set()
    for number in range(rows):
        segments, padding = lineage.row(finished, "baike2018qa", "train", number)
        assert sum(segment.length for segment in segments) + padding == 128
        for segment in segments:
            assert segment.rebuilt
            assert segment.origin.rebuilt
            record = json.loads(segment.origin.raw)
            assert segment.origin.id.startswith(record["qid"] + "@")
            seen.add(record["qid"])
    left_out = {row["id"].partition("@")[0] for row in rows_of(finished.dedup, "baike2018qa")}
    assert 0 < len(left_out) < 10
    assert seen == {f"qid_{n}" for n in [*range(300), 500]} - left_out
    with pytest.raises(WorkspaceError, match=f"it has {rows}"):
        lineage.row(finished, "baike2018qa", "train", rows)


def test_trace_shows_what_cleaning_did(finished: Workspace) -> None:
    (origin,) = lineage.documents(finished, ("baike2018qa",), text="用温水")
    assert origin.text == "怎样洗杯子？\n用温水。\n\n再擦干，放在12号架上。"
    assert {"strip_tags", "break_lines", "narrow_letters", "collapse_blanks", "collapse_lines"} <= set(origin.rules)
    assert "１２" in origin.raw.decode()
    again = list(lineage.documents(finished, ("baike2018qa",), name=origin.id))
    assert again == [origin]


def test_trace_on_the_terminal(finished: Workspace) -> None:
    folder = finished.root.parent
    assert "the same again" in corpus("trace", "baike2018qa:0", folder=folder).stdout
    assert "segments" in corpus("trace", "baike2018qa/validation:0", folder=folder).stdout
    shown = corpus("trace", "--rejected", "empty", folder=folder).stdout
    assert "2 records dropped for empty" in shown
    assert "qid_900" in shown
    assert "怎样洗杯子" in corpus("trace", "--text", "用温水", folder=folder).stdout
    assert "has no row 99999" in corpus("trace", "baike2018qa:99999", folder=folder, code=1).stderr
    for wrong in (["trace"], ["trace", "x:1"], ["trace", "baike2018qa:0", "--text", "a"], ["trace", "baike2018qa:-1"]):
        corpus(*wrong, folder=folder, code=2)


def test_raw_bytes_cannot_command_the_terminal(workspace: Workspace, lay_raw: LayRaw) -> None:
    lay_raw("baike2018qa", {TRAIN: lines([baike(n) for n in range(30)]) + b"\x1b]0;title\x07\x1b[2J not json\n"})
    ingest.run(ingest.IngestConfig(dataset="baike2018qa", workers=1), workspace)
    shown = corpus("trace", "--rejected", "malformed_json", folder=workspace.root.parent).stdout
    assert "\x1b" not in shown
    assert "⟨001B⟩]0;title⟨0007⟩" in shown
