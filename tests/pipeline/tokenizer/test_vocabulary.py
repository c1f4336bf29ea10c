"""The compiled encoder against `tokenizers`: the same ids for every text, and no vocabulary that it cannot do."""

from __future__ import annotations

import functools
import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, pre_tokenizers

from corpus.pipeline import kernels
from corpus.pipeline.tokenizer import encoders, special_tokens, trainer, vocabulary
from tests.support.records import examples

pytestmark = pytest.mark.skipif(kernels.compiled is None, reason="the kernels were not built: no compiler was at hand")

LEARNT = {
    "tied": ["aaaaaaaaaaaa abababab bababa aabbaabb" * 3, "aaa ab aab abb" * 40, "bbbbbbb" * 5],
    "han": ["潮水涨了又落，春天去了又来。", "春天的潮水", "来去来去来来去去", "水水水水，春春春", "a潮b水1春 来\n去"]
    * 30,
    "bytes": ["\U0001f600\U0001f601\U0001f602𠀀𠀁𠀂", "éèêëē éé", "\u3000\u3000首行\u3000", "的\ue000\ue001\uffff"]
    * 20,
    "english": ["it's we've they'll I'd 'tis the the tide tides, 1234 12 99 1999", " the  the   tide\n\n tide"] * 20,
}
"""Texts to learn merges from: equal neighbours, whole characters and parts of them, blanks before words."""
ENTRIES = (300, 420, 900)
PIECES = st.one_of(
    st.sampled_from(
        [
            *"ab潮水涨落春天去来的，。1２٣Ⅷ 's\n\t\r\x0b\x1c\x85\xa0\u2028\u3000\u180e\ufeff\u200bé",
            "aa", "aaa", "abab", "潮水", "春天", "来去", "'s", "'ve", "'ll", "'x", "  ", "   ", " the", "tide",
            "\U0001f600", "𠀀", "𠀂", "\U00031350", "\U0003fffd", "\U000e0001", "\U0010ffff", "\ue000", "\uffff",
        ]
    ),
    st.characters(exclude_categories=["Cs"]),
)  # fmt: skip
TEXTS = st.lists(st.lists(PIECES, max_size=40).map("".join), max_size=6)


@functools.cache
def model(name: str, entries: int) -> Tokenizer:
    learnt = [text for texts in LEARNT.values() for text in texts] if name == "all" else LEARNT[name]
    return trainer.train(learnt, entries)


def reference(tokenizer: Tokenizer, texts: pa.Array) -> tuple[list[int], list[int]]:
    flat, lengths = encoders.encode_by_reference(tokenizer, texts)
    return flat.tolist(), lengths.tolist()


def compiled(made: object, texts: pa.Array) -> tuple[list[int], list[int]]:
    _, offsets, data = texts.buffers()
    ids = np.zeros(data.size if data else 0, dtype=np.uint32)
    lengths = np.zeros(len(texts), dtype=np.int64)
    count = kernels.compiled.encode(made, offsets, data or b"", texts.offset, len(texts), ids, lengths)
    return ids[:count].tolist(), lengths.tolist()


@pytest.mark.parametrize("name", [*LEARNT, "all"])
@pytest.mark.parametrize("entries", ENTRIES)
def test_ids_are_those_of_the_reference(name: str, entries: int) -> None:
    tokenizer = model(name, entries)
    made = vocabulary.of(tokenizer.to_str())

    @settings(max_examples=examples(60), deadline=None)
    @given(TEXTS)
    def check(texts: list[str]) -> None:
        array = pa.array(["x", *texts], pa.string())[1:]
        assert compiled(made, array) == reference(tokenizer, array)

    check()


@settings(deadline=None)
@given(st.lists(st.text(st.sampled_from("ab"), min_size=1, max_size=12), min_size=1, max_size=6), TEXTS)
def test_so_they_are_with_merges_of_any_text(learnt: list[str], texts: list[str]) -> None:
    tokenizer = trainer.train(learnt * 3, 300)
    array = pa.array([*texts, *learnt, "".join(learnt)], pa.string())
    assert compiled(vocabulary.of(tokenizer.to_str()), array) == reference(tokenizer, array)


ALIKE = st.text(st.sampled_from("一丁丂亀二乀砀。a"), max_size=12)
"""Characters of few different bytes, so that merges are learnt that hold one of them and a part of the next."""


@settings(deadline=None)
@given(st.lists(ALIKE, min_size=1, max_size=6), st.integers(257, 290), st.lists(ALIKE, max_size=6))
def test_so_they_are_with_merges_that_hold_parts_of_characters(learnt: list[str], size: int, texts: list[str]) -> None:
    tokenizer = trainer.train(learnt * 3, size)
    array = pa.array([*texts, *learnt, "".join(learnt)], pa.string())
    assert compiled(vocabulary.of(tokenizer.to_str()), array) == reference(tokenizer, array)


def test_words_as_long_as_a_text() -> None:
    tokenizer = model("all", 900)
    made = vocabulary.of(tokenizer.to_str())
    for word in ("a", "ab", "aab", "春天去", "水", "\U0001f600", "!", " ", "\u3000", "12"):
        array = pa.array([word * 20_000, f"{word * 63}x", f"{word * 64} x"], pa.string())
        assert compiled(made, array) == reference(tokenizer, array)


def test_every_class_is_what_the_reference_takes_a_character_for() -> None:
    codes = [code for code in range(0x40000) if not 0xD800 <= code < 0xE000]
    text = "".join(map(chr, codes))
    for pattern, number in {r"\p{L}+": 1, r"\p{N}+": 2, r"\s+": 3}.items():
        others = pre_tokenizers.Split(Regex(pattern), "removed").pre_tokenize_str(text)
        of = {code for _, (begin, end) in others for code in codes[begin:end]}
        assert set(np.flatnonzero(vocabulary.classes() == number).tolist()) == set(codes) - of


def described(**changes: Any) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(model("han", 420).to_str())
    return parsed | changes


def with_model(**changes: Any) -> dict[str, Any]:
    return described(model=described()["model"] | changes)


def with_merges(*merges: tuple[str, str]) -> dict[str, Any]:
    names = [*special_tokens.BYTE_NAMES.values(), *dict.fromkeys(map("".join, merges))]
    return with_model(merges=merges, vocab={name: number for number, name in enumerate(names)})


REFUSED = {
    "another normalizer": (described(normalizer={"type": "NFC"}), "plain byte-level BPE"),
    "another pattern": (described(pre_tokenizer={"type": "Whitespace"}), "plain byte-level BPE"),
    "no pattern": (described(pre_tokenizer=None), "plain byte-level BPE"),
    "truncation": (described(truncation={"max_length": 8}), "plain byte-level BPE"),
    "dropout": (with_model(dropout=0.1), "plain byte-level BPE"),
    "another model": (with_model(type="WordLevel"), "plain byte-level BPE"),
    "a byte without entry": (with_model(vocab={}), "lacks an entry"),
    "merges of what is not there": (with_merges(("ab", "c")), "lacks an entry"),
    "two merges that make one entry": (with_merges(("a", "b"), ("b", "c"), ("ab", "c"), ("a", "bc")), "the same entry"),
    "two entries of one id": (
        with_model(vocab=described()["model"]["vocab"] | {"t": described()["model"]["vocab"]["h"]}),
        "the same id",
    ),
    "a token that is found in any text": (
        described(added_tokens=[{"content": "FOO", "special": False}]),
        "not special",
    ),
    "a template": (described(post_processor={"type": "TemplateProcessing"}), "plain byte-level BPE"),
    "an entry that encodes otherwise": (with_merges(("b", "c"), ("a", "b"), ("ab", "c")), "encodes otherwise"),
    "an entry that is too long": (
        with_merges(*[("a" * 2**power, "a" * 2**power) for power in range(17)]),
        "too long",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_another_tokenizer_is_refused(case: str) -> None:
    description, why = REFUSED[case]
    with pytest.raises(ValueError, match=why):
        vocabulary.of(json.dumps(description))


def test_merges_as_older_files_spell_them() -> None:
    tokenizer = model("english", 420)
    parsed = json.loads(tokenizer.to_str())
    parsed["model"]["merges"] = [" ".join(merge) for merge in parsed["model"]["merges"]]
    array = pa.array(LEARNT["english"], pa.string())
    assert compiled(vocabulary.of(json.dumps(parsed)), array) == reference(tokenizer, array)


def test_texts_beside_their_bytes_are_an_error() -> None:
    made = vocabulary.of(model("han", 420).to_str())
    encode, ids, lengths = kernels.compiled.encode, np.zeros(8, np.uint32), np.zeros(1, np.int64)
    for offsets in ([0, 9], [-1, 3], [5, 3]):
        with pytest.raises(ValueError, match="beside their bytes"):
            encode(made, np.array(offsets, np.int32), b"12345678", 0, 1, ids, lengths)
    with pytest.raises(ValueError, match="no room"):
        encode(made, np.array([0, 8], np.int32), b"12345678", 0, 1, ids[:7], lengths)
    for first, count in ((-1, 1), (0, -1), (1, 1), (1 << 61, 1), (0, 2)):
        with pytest.raises(ValueError, match=r"no such texts|are needed"):
            encode(made, np.array([0, 8], np.int32), b"12345678", first, count, ids, lengths)
    beside = memoryview(bytearray(40))[1:]
    unaligned: Any
    for unaligned in ((beside, ids), (np.array([0, 8], np.int32), beside)):
        with pytest.raises(ValueError, match="are needed"):
            encode(made, unaligned[0], b"12345678", 0, 1, unaligned[1], lengths)
    with pytest.raises(ValueError, match=r"incorrect name|invalid"):
        encode(object(), np.array([0, 8], np.int32), b"12345678", 0, 1, ids, lengths)


def test_bytes_that_are_no_utf8_do_no_harm() -> None:
    made = vocabulary.of(model("bytes", 900).to_str())
    draw = np.random.default_rng(5)
    for size in (*range(1, 40), 5000):
        raw = draw.choice(
            np.frombuffer("\U0001f600潮é a1".encode() + b"\xff\xf8\x80\xe0\xf4", np.uint8), size
        ).tobytes()
        ids, lengths = np.zeros(size, np.uint32), np.zeros(1, np.int64)
        assert 0 < kernels.compiled.encode(made, np.array([0, size], np.int32), raw, 0, 1, ids, lengths) <= size
        assert lengths[0] <= size
