"""Our bytes are those that the trainers' own projects write: files in tests/golden/export/ were written by them.

Megatron-LM, `megatron-core` 0.16.1, for `name, kind` in (uint16, numpy.uint16) and (int32, numpy.int32):

    builder = megatron.core.datasets.indexed_dataset.IndexedDatasetBuilder(f"megatron-{name}.bin", dtype=kind)
    for document in DOCUMENTS:
        builder.add_document(document, [len(document)])
    builder.finalize(f"megatron-{name}.idx")

MosaicML streaming, `mosaicml-streaming` 0.13.0:

    with streaming.MDSWriter(out="mds", columns={"id": "str", "tokens": "ndarray:uint16"}, size_limit=None) as out:
        for name, document in zip(NAMES, DOCUMENTS):
            out.write({"id": name, "tokens": numpy.array(document, numpy.uint16)})

llm.c at f1e2ace, in its folder dev/data, for `model` in gpt-2 and llama-3:

    data_common.write_datafile(f"llmc-{model}.bin", [token for document in DOCUMENTS for token in document], model)
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from corpus.pipeline.errors import ExportError
from corpus.pipeline.export import formats
from corpus.pipeline.export.formats import FORMATS, Piece
from tests.support.records import ROOT

GOLDEN = ROOT / "tests" / "golden" / "export"
DOCUMENTS = [[5, 6, 7, 0], [1, 0], [9] * 300 + [0]]
NAMES = ["a", "b@x.json:17", "文"]
TOKENS = list(itertools.chain(*DOCUMENTS))


@pytest.mark.parametrize("kind", ["<u2", "<i4"])
def test_megatron_index(kind: str) -> None:
    lengths = np.array([len(document) for document in DOCUMENTS])
    theirs = (GOLDEN / f"megatron-{np.dtype(kind).name}.idx").read_bytes()
    for cut in range(len(lengths) + 1):  # the same from any number of pieces
        parts = [lengths[:cut], lengths[cut:]]
        assert b"".join(formats.megatron_index(np.dtype(kind), 3, parts.copy)) == theirs
    assert np.array(TOKENS, "<u2").tobytes() == (GOLDEN / "megatron-uint16.bin").read_bytes()


def test_mds() -> None:
    kind = np.dtype("<u2")
    shard = formats.mds_shard(kind, NAMES, [np.array(document, kind) for document in DOCUMENTS])
    assert shard == (GOLDEN / "mds" / "shard.00000.mds").read_bytes()
    index = formats.mds_index(kind, [("shard.00000.mds", len(shard), len(DOCUMENTS))])
    assert json.loads(index) == json.loads((GOLDEN / "mds" / "index.json").read_bytes())


@pytest.mark.parametrize(("model", "kind"), [("gpt-2", "<u2"), ("llama-3", "<u4")])
def test_llmc(model: str, kind: str) -> None:
    ours = formats.llmc_header(np.dtype(kind), len(TOKENS)) + np.array(TOKENS, kind).tobytes()
    assert ours == (GOLDEN / f"llmc-{model}.bin").read_bytes()


@pytest.mark.parametrize(
    ("name", "vocab_size", "kind"),
    [
        ("nanogpt", 65_536, "<u2"), ("llmc", 65_536, "<u2"), ("llmc", 65_537, "<u4"), ("megatron", 65_499, "<u2"),
        ("megatron", 65_500, "<i4"), ("mds", 65_537, "<u4"),
    ],
)  # fmt: skip
def test_ids_have_a_type_that_holds_them(name: str, vocab_size: int, kind: str) -> None:
    assert formats.token_type(FORMATS[name], vocab_size) == np.dtype(kind)


def test_nanogpt_refuses_a_large_vocabulary() -> None:
    with pytest.raises(ExportError, match="65,537 entries") as failure:
        formats.token_type(FORMATS["nanogpt"], 65_537)
    assert "--format llmc" in failure.value.hint


def pieces(*characters: int, dataset: str = "demo") -> list[Piece]:
    return [Piece(dataset, "train", number, (Path("x"),), size, "MIT") for number, size in enumerate(characters)]


@pytest.mark.parametrize("sizes", [(7,), (5, 5, 5), (100,) * 45, (100,) * 10 + (1,) * 40, (1,) * 40 + (100,) * 11])
def test_shards_of_llmc_have_about_one_size(sizes: tuple[int, ...]) -> None:
    placed = formats.placed(pieces(*sizes), FORMATS["llmc"])
    shards: dict[str, int] = {}
    for piece in placed:
        shards[piece.file] = shards.get(piece.file, 0) + piece.characters
    assert list(shards) == [f"train_{number:06d}.bin" for number in range(len(shards))]
    assert min(shards.values()) >= sum(sizes) / len(shards) / 2
    assert max(shards.values()) <= formats.SHARD_PIECES * max(sizes) + max(sizes)


def test_no_two_folders_have_one_name_for_llama_factory() -> None:
    folders = [("q", "train"), ("q", "test"), ("q", "validation"), ("q_test", "train"), ("q_test", "test")]
    pieces = [Piece(name, split, number, (), 1, "") for name, split in folders for number in range(2)]
    found = json.loads(formats.llama_factory(pieces, chat=False))
    assert {name: each["file_name"] for name, each in found.items()} == {
        "q": "q/train", "q.test": "q/test", "q_validation": "q/validation",
        "q_test": "q_test/train", "q_test_test": "q_test/test",
    }  # fmt: skip
