"""Tokenizer and rows: the round trip, the layout on disk, the engines, the reruns."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import duckdb
import numpy as np
import polars
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from corpus.pipeline import kernels
from corpus.pipeline.documents import stage as ingest
from corpus.pipeline.documents.stage import IngestConfig
from corpus.pipeline.errors import DamageError, WorkspaceError
from corpus.pipeline.pack import stage as pack
from corpus.pipeline.pack.stage import PackConfig
from corpus.pipeline.storage import document_shards
from corpus.pipeline.storage.document_shards import split_ref
from corpus.pipeline.tokenizer import encoders, files, special_tokens, vocabulary
from corpus.pipeline.tokenizer import stage as tokenizer
from corpus.pipeline.tokenizer.stage import TokenizerConfig
from corpus.pipeline.workspace import receipts
from corpus.pipeline.workspace.layout import Workspace
from tests.support.documents import TRAIN, VALID, Listener, tree
from tests.support.records import LayRaw, baike, lines

needs_kernels = pytest.mark.skipif(kernels.compiled is None, reason="the kernels were not built: no compiler at hand")
SPECIAL = "正文里写着<|endoftext|>和<|pad|>，还有<|user|>，它们只是字。"


@pytest.fixture
def ready(workspace: Workspace, lay_raw: LayRaw) -> Workspace:
    """A workspace with documents and a small tokenizer."""
    long = "，".join(f"第{n}步要看清楚再动手" for n in range(400))
    records = [baike(n, answer=f"答案是{n * 7}，因为{'道理' * (n % 40)}如此。") for n in range(900)]
    records += [
        baike(5000, answer=SPECIAL),
        baike(5001, answer=long),
        baike(5002, answer="表情😀与𠮷野家，ｃａｆｅ\u0301，한국어。"),
    ]
    lay_raw("baike2018qa", {TRAIN: lines(records), VALID: lines([baike(n) for n in range(900, 960)])})
    ingest.run(IngestConfig(dataset="baike2018qa", workers=1, piece_bytes=60_000, off=("repeated_spans",)), workspace)
    tokenizer.run(TokenizerConfig(vocab_size=360), workspace)
    return workspace


def make(workspace: Workspace, **settings: Any) -> Any:
    values: dict[str, Any] = {"dataset": "baike2018qa", "workers": 1, "seq_length": 128} | settings
    return pack.run(PackConfig(**values), workspace)


def encoded(workspace: Workspace, engine: str, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    return encoders.make(engine, workspace.tokenizer)(pa.array(texts, pa.string()))


def texts(workspace: Workspace) -> dict[tuple[int, int], str]:
    return {
        (number, line): text
        for number, path in enumerate(sorted(workspace.documents("baike2018qa").glob("part-*.parquet")))
        for line, text in enumerate(pq.read_table(path)["text"].to_pylist())
    }


@pytest.mark.parametrize("strategy", ["best-fit", "concat"])
def test_decoding_the_segments_gives_back_every_text(ready: Workspace, strategy: str) -> None:
    report = make(ready, strategy=strategy, unit_characters=9000)
    model = files.load(ready.tokenizer)
    separator, pad = model.token_to_id("<|endoftext|>"), model.token_to_id("<|pad|>")
    found: dict[tuple[int, int], dict[int, list[int]]] = {}
    rows = datasets.load_from_disk(str(ready.packed("baike2018qa")))
    for split, counts in report.ledger.counts["splits"].items():
        assert len(rows[split]) == counts["rows"]
        padding = 0
        for row in rows[split]:
            position = 0
            for segment in row["segments"]:
                ids = row["input_ids"][position : position + segment["length"]]
                found.setdefault(split_ref(segment["document"]), {})[segment["start"]] = ids
                position += segment["length"]
            assert row["input_ids"][position:] == [pad] * (128 - position)
            padding += 128 - position
        assert padding == counts["padding"]
    expected = texts(ready)
    assert found.keys() == expected.keys()
    for place, segments in found.items():
        whole: list[int] = []
        for start in sorted(segments):
            assert start == len(whole)
            whole += segments[start]
        assert whole[-1] == separator
        assert separator not in whole[:-1]
        assert model.decode(whole[:-1], skip_special_tokens=False) == expected[place]
    counts = report.ledger.counts["splits"]
    assert sum(count["documents"] for count in counts.values()) == len(expected)
    assert counts["train"]["rows"] * 128 == counts["train"]["tokens"] + counts["train"]["padding"]
    if strategy == "best-fit":
        assert counts["train"]["cut_documents"] == sum(len(segments) > 1 for segments in found.values())


def test_every_output_opens_with_one_line(ready: Workspace) -> None:
    make(ready)
    root = ready.root
    assert datasets.load_from_disk(str(root / "packed/baike2018qa"))["train"].num_rows > 0
    assert AutoTokenizer.from_pretrained(root / "tokenizer")("你好")["input_ids"]
    assert polars.read_parquet(root / "documents/baike2018qa/part-*.parquet").height == 963
    assert duckdb.read_parquet(f"{root}/documents/baike2018qa/part-*.parquet").count("id").fetchall() == [(963,)]


def test_shards_are_small_arrow_streams(ready: Workspace) -> None:
    counts = make(ready, seq_length=256).ledger.counts["splits"]["train"]
    rows = datasets.load_from_disk(str(ready.packed("baike2018qa")))["train"].with_format("arrow")[:4]
    assert str(rows.schema.field("input_ids").type) == "fixed_size_list<element: uint16>[256]".replace(
        "element", rows.schema.field("input_ids").type.value_field.name
    )
    assert str(rows.schema.field("segments").type.value_type) == "struct<document: int64, start: int32, length: int32>"
    size = sum(path.stat().st_size for path in (ready.packed("baike2018qa") / "train").glob("*.arrow"))
    assert size < 2 * 256 * counts["rows"] + 16 * (counts["documents"] + counts["rows"]) + 4 * counts["rows"] + 6000


@needs_kernels
def test_special_strings_are_ordinary_text(ready: Workspace) -> None:
    model = files.load(ready.tokenizer)
    specials = {model.token_to_id(token) for token in special_tokens.SPECIAL_TOKENS}
    for engine in (encoders.REFERENCE, encoders.KERNEL):
        flat, lengths = encoded(ready, engine, [SPECIAL, "平常"])
        assert not specials & set(flat.tolist())
        assert model.decode(flat[: lengths[0]].tolist(), skip_special_tokens=False) == SPECIAL
    hub = AutoTokenizer.from_pretrained(ready.tokenizer)
    assert (
        hub(SPECIAL, split_special_tokens=True)["input_ids"]
        == encoded(ready, encoders.REFERENCE, [SPECIAL])[0].tolist()
    )
    assert (hub.eos_token, hub.pad_token) == ("<|endoftext|>", "<|pad|>")


@needs_kernels
def test_workers_and_engine_change_no_byte(ready: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    trees, compiled = [], kernels.compiled
    for workers, loaded in ((1, compiled), (2, compiled), (4, compiled), (1, None)):
        shutil.rmtree(ready.packed("baike2018qa"), ignore_errors=True)
        monkeypatch.setattr(kernels, "compiled", loaded)
        report = make(ready, workers=workers, unit_characters=9000)
        engine = json.loads((report.folder / "timings.json").read_text())["engine"]
        assert engine == (encoders.KERNEL if loaded else encoders.REFERENCE)
        trees.append(tree(ready.packed("baike2018qa")))
    assert len([name for name in trees[0] if name.startswith("train/data-")]) > 2
    assert all(other == trees[0] for other in trees[1:])


@needs_kernels
def test_kernels_with_other_ids_are_not_used(ready: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(right: encoders.Encode, batch: pa.Array) -> tuple[np.ndarray, np.ndarray]:
        flat, lengths = right(batch)
        flat = flat.copy()
        flat[-1] += 1
        return flat, lengths

    def refuse(description: str) -> Any:
        raise ValueError("not this one")

    first, right = tree(make(ready).folder), encoders.encode_by_kernel
    for module, name, fault, said in (
        (encoders, "encode_by_kernel", lambda made, batch: wrong(partial(right, made), batch), "give other ids"),
        (vocabulary, "of", refuse, "refuse this tokenizer (not this one)"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, fault)
            shutil.rmtree(ready.packed("baike2018qa"))
            listener = Listener()
            config = PackConfig(dataset="baike2018qa", workers=1, seq_length=128)
            report = pack.run(config, ready, progress=listener)
        assert any(f"kernels {said}" in line and "encoding with tokenizers" in line for line in listener.said)
        assert json.loads((report.folder / "timings.json").read_text())["engine"] == encoders.REFERENCE
        assert tree(report.folder) == first


@needs_kernels
def test_strings_of_any_arrow_type_are_encoded_alike(ready: Workspace) -> None:
    texts = pa.array(["重来", "潮水涨落，春去秋来。", SPECIAL, "abc"], pa.string())
    expected = encoders.make(encoders.REFERENCE, ready.tokenizer)(texts[1:])[0].tolist()
    encode = encoders.make(encoders.KERNEL, ready.tokenizer)
    for same in (texts, texts.cast(pa.large_string())):
        assert encode(same[1:])[0].tolist() == expected


@needs_kernels
def test_where_the_kernels_fail_the_reference_is_used(ready: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    right = encoders.make

    def make_known(engine: str, folder: Path) -> encoders.Encode:
        if engine != encoders.REFERENCE:
            raise ValueError("unknown")
        return right(engine, folder)

    proof, _ = encoders.prove(right(encoders.REFERENCE, ready.tokenizer), pa.array([SPECIAL]))
    assert encoders.choose(ready.tokenizer, proof).engine == encoders.KERNEL
    monkeypatch.setattr(encoders, "make", make_known)
    chosen = encoders.choose(ready.tokenizer, proof)
    assert chosen.engine == encoders.REFERENCE
    assert chosen.warning.endswith("refuse this tokenizer (unknown): encoding with tokenizers")


def test_without_kernels_it_says_so(ready: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "compiled", None)
    listener = Listener()
    pack.run(PackConfig(dataset="baike2018qa", workers=1, seq_length=128), ready, progress=listener)
    assert any("the kernels were not built: encoding with tokenizers" in line for line in listener.said)


@needs_kernels
def test_ids_do_not_depend_on_what_was_encoded_before(ready: Workspace) -> None:
    reference = encoders.make(encoders.REFERENCE, ready.tokenizer)
    fast = encoders.make(encoders.KERNEL, ready.tokenizer)
    for same in ("潮水涨落，" * 400, "the tide comes in and " * 250):  # a long beginning that two documents share
        for run in (" " * 700, "\n\n", " "):  # where a blank ends depends on what follows it
            for first, second in (("x", " "), ("中", "\n"), ("x", "\tx"), ("x", "y")):
                texts = pa.array(["重来", f"{same}{run}{first}{same}", f"{same}{run}{second}"])
                flat, lengths = fast(texts)
                assert flat.tolist() == reference(texts)[0].tolist()
                assert flat[-lengths[-1] :].tolist() == reference(texts[-1:])[0].tolist()


@needs_kernels
def test_a_tokenizer_that_took_the_place_of_another_is_loaded_anew(ready: Workspace) -> None:
    path, texts = ready.tokenizer / "tokenizer.json", ["潮水涨落，春去秋来。"]
    before = encoded(ready, encoders.KERNEL, texts)[0].tolist()
    description = json.loads(path.read_bytes())
    description["model"]["merges"] = []
    path.write_text(json.dumps(description), encoding="utf-8")
    after = encoded(ready, encoders.KERNEL, texts)[0].tolist()
    assert len(after) > len(before)
    assert after == encoded(ready, encoders.REFERENCE, texts)[0].tolist()


def test_the_engine_is_checked_on_documents_from_everywhere(workspace: Workspace, lay_raw: LayRaw) -> None:
    long = [baike(n, answer=f"第{n}篇。" + "说来话长，" * 2000) for n in range(200)]
    lay_raw("baike2018qa", {TRAIN: lines(long), VALID: lines([baike(n) for n in range(20)])})
    ingest.run(IngestConfig(dataset="baike2018qa", workers=1, piece_bytes=1 << 20, off=("repeated_spans",)), workspace)
    folder = workspace.documents("baike2018qa")
    shards = sorted(folder.glob("part-*.parquet"))
    assert len(shards) > 3
    sample = set(document_shards.check_sample(folder).to_pylist())
    assert all(sample & set(pq.read_table(path)["text"].to_pylist()) for path in shards[:8])


def test_rerun_and_staleness(ready: Workspace) -> None:
    assert not make(ready).skipped
    assert make(ready).skipped
    assert make(ready, strategy="concat").reasons == ("strategy was best-fit and is concat",)
    tokenizer.run(TokenizerConfig(vocab_size=390), ready)
    reasons = make(ready, strategy="concat").reasons
    assert "input tokenizer/tokenizer.json has changed" in reasons
    assert "vocab-size was 360 and is 390" in reasons


def test_half_done_rows_are_continued(ready: Workspace) -> None:
    folder = make(ready, unit_characters=9000).folder
    whole = tree(folder)
    (folder / "ledger.json").unlink()
    (folder / "train" / "data-00001.arrow").unlink()
    (folder / "train" / "data-00002.arrow").write_bytes(b"\xff\xff\xff\xff")
    untouched = (folder / "train" / "data-00000.arrow").stat().st_mtime_ns
    make(ready, unit_characters=9000)
    assert tree(folder) == whole
    assert (folder / "train" / "data-00000.arrow").stat().st_mtime_ns == untouched


class Stopping(Listener):
    """Presses Ctrl-C when so many shards are there."""

    def __init__(self, shards: int) -> None:
        super().__init__()
        self.left = shards

    def advance(self, amount: int) -> None:
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_leaves_whole_shards_and_their_receipts(ready: Workspace, workers: int) -> None:
    folder = make(ready, unit_characters=9000).folder
    whole = tree(folder)
    shutil.rmtree(folder)
    config = PackConfig(dataset="baike2018qa", workers=workers, seq_length=128, unit_characters=9000)
    with pytest.raises(KeyboardInterrupt):
        pack.run(config, ready, progress=Stopping(2))
    there = tree(folder)
    shards = {name for name in there if name.endswith(".arrow")}
    assert {"train/data-00000.arrow", "train/data-00001.arrow"} <= shards < whole.keys()  # a second worker may add some
    assert all(there[name] == whole[name] for name in shards)
    told = {output.path for found in receipts.read_all(folder) for output in found.receipt.outputs}
    assert {"train/data-00000.arrow", "train/data-00001.arrow"} <= told <= shards
    assert {name.partition("/")[0] for name in there.keys() - shards} == {receipts.FOLDER}
    make(ready, unit_characters=9000, workers=workers)
    assert tree(folder) == whole


def test_a_damaged_documents_shard_is_named(ready: Workspace) -> None:
    path = sorted(ready.documents("baike2018qa").glob("part-*.parquet"))[1]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(DamageError, match="part-00001"):
        make(ready)
    path.unlink()
    with pytest.raises(DamageError, match="part-00001"):
        make(ready)


def test_nothing_to_pack(workspace: Workspace, ready: Workspace) -> None:
    with pytest.raises(WorkspaceError, match="wiki2019zh has no documents"):
        make(ready, dataset="wiki2019zh")
    shutil.rmtree(ready.tokenizer)
    with pytest.raises(WorkspaceError, match="no tokenizer"):
        make(ready)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"seq_length": 1}, "--seq-length"),
        ({"seq_length": 1 << 40}, "--seq-length"),
        ({"strategy": "random"}, "--strategy"),
        ({"workers": -1}, "--workers"),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        PackConfig(**({"dataset": "demo"} | settings))


def test_tokenizer_report(ready: Workspace) -> None:
    ledger = tokenizer.run(TokenizerConfig(vocab_size=360), ready).ledger
    assert ledger.counts["entries"] == 360
    row = ledger.counts["datasets"]["baike2018qa"]
    assert row["bytes_per_token"] > row["characters_per_token"] > 1
    assert 0 < row["han_with_own_token"] <= 1


def test_tokenizer_learns_from_training_documents_only(workspace: Workspace, lay_raw: LayRaw) -> None:
    lay_raw(
        "baike2018qa",
        {
            TRAIN: lines([baike(n) for n in range(50)]),
            VALID: lines([baike(n, answer="魑魅魍魉" * 9) for n in range(50)]),
        },
    )
    ingest.run(IngestConfig(dataset="baike2018qa", workers=1), workspace)
    tokenizer.run(TokenizerConfig(vocab_size=2000), workspace)
    assert len(files.load(workspace.tokenizer).encode("魑魅魍魉").ids) == 12


def test_small_sample_is_told_and_sampling_is_balanced(ready: Workspace, lay_raw: LayRaw) -> None:
    records = [{"english": f"Cup number {n} is clean.", "chinese": f"第{n}个杯子是干净的。"} for n in range(400)]
    lay_raw("translation2019zh", {"translation2019zh_train.json": lines(records)})
    ingest.run(IngestConfig(dataset="translation2019zh", workers=1), ready)
    report = tokenizer.run(TokenizerConfig(vocab_size=50_000, sample_characters=20_000), ready)
    assert "only" in report.notes[0]
    shares = {name: row["sampled"] for name, row in report.ledger.counts["datasets"].items()}
    assert set(shares) == {"baike2018qa", "translation2019zh"}
    assert all(9_000 < share < 12_500 for share in shares.values()), shares


def test_training_is_repeatable(ready: Workspace) -> None:
    first = (ready.tokenizer / "tokenizer.json").read_bytes()
    shutil.rmtree(ready.tokenizer)
    tokenizer.run(TokenizerConfig(vocab_size=360), ready)
    assert (ready.tokenizer / "tokenizer.json").read_bytes() == first
    assert Tokenizer.from_file(str(ready.tokenizer / "tokenizer.json")).get_vocab_size() == 360


def test_row_files_have_no_machine_path(ready: Workspace, tmp_path: Path) -> None:
    make(ready)
    for area in ("documents", "tokenizer", "packed"):
        for path in (ready.root / area).rglob("*"):
            assert not path.is_file() or str(tmp_path).encode() not in path.read_bytes()
