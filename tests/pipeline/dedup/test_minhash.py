"""Keys and clusters: right estimates, the stated curve, and no pair too many."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus.pipeline import kernels
from corpus.pipeline.dedup import clusters
from corpus.pipeline.dedup.clusters import MAX_ROUNDS, MAX_TURNS, Clusters
from corpus.pipeline.signatures import minhash
from corpus.pipeline.templates import TRANSLATE
from corpus.pipeline.text import ngrams, normalize
from corpus.pipeline.text.normalize import fold

GOLDEN_DIGEST = [13830634864197331201, 9173702848315816938]
GOLDEN_BANDS = [6991161767980549854, 17704651905638350794, 5224522399243738100]
HAN = np.arange(0x4E00, 0x9000, dtype=np.uint32)


def text_of(codes: np.ndarray) -> str:
    return codes.astype("<u4").tobytes().decode("utf-32-le")


def pairs_of(similarity: float, count: int, length: int = 240) -> tuple[list[str], float]:
    """Pairs of texts one after the other, with a stretch of the second replaced, and their true similarity."""
    random = np.random.default_rng(round(similarity * 1000) + length)
    shingles = length - minhash.SHINGLE + 1
    shared = round(2 * shingles * similarity / (1 + similarity))
    stretch = shingles - shared - minhash.SHINGLE + 1
    texts: list[str] = []
    for codes in HAN[random.integers(0, len(HAN), (count, length))]:
        changed = codes.copy()
        begin = random.integers(minhash.SHINGLE, length - stretch - minhash.SHINGLE)
        changed[begin : begin + stretch] = HAN[random.integers(0, len(HAN), stretch)]
        texts += [text_of(codes), text_of(changed)]
    return texts, shared / (2 * shingles - shared)


def band_probability(similarity: float, rows: int) -> float:
    """Probability that two texts of this Jaccard similarity share at least one band."""
    return float(1 - (1 - similarity**rows) ** minhash.BANDS)


def sets(text: str, frame: str = "") -> set[str]:
    folded = fold(text)
    folded = folded[len(fold(frame)) :] if frame and folded.startswith(fold(frame)) else folded
    return {folded[place : place + minhash.SHINGLE] for place in range(len(folded) - minhash.SHINGLE + 1)}


@pytest.mark.parametrize(
    ("length", "similarity"),
    [(24, 0.3), (60, 0.3), (60, 0.6), (240, 0.3), (240, 0.8), (240, 0.95), (1500, 0.3), (1500, 0.8), (1500, 0.95)],
)
def test_signatures_estimate_the_true_similarity(length: int, similarity: float) -> None:
    texts, _ = pairs_of(similarity, 200, length)
    own = [sets(text) for text in texts]
    true = np.array([len(one & two) / len(one | two) for one, two in zip(own[::2], own[1::2], strict=True)])
    found = minhash.shingle_sets(texts)
    assert minhash.jaccard(found, np.arange(0, 400, 2), np.arange(1, 400, 2)) == pytest.approx(true, abs=1e-3)
    flat = found.flat[minhash.concat_ranges(found.starts, found.sizes)]
    rows = minhash.sketches(flat.astype(np.uint64), found.sizes, 140)
    errors = (rows[::2] == rows[1::2]).mean(axis=1) - true
    assert abs(errors.mean()) < 4 * errors.std() / np.sqrt(len(errors))
    assert errors.std() < 1.15 * np.sqrt((true * (1 - true)).mean() / 140)


def test_the_stated_curve_is_the_formula_and_is_measured() -> None:
    stated = re.search(r"    s( +0\.\d\d)+\n    P( +\d\.\d\d)+", minhash.__doc__ or "")
    assert stated is not None
    similarities, chances = ([float(figure) for figure in line.split()[1:]] for line in stated[0].split("\n"))
    rows = minhash.rows_for(0.7)
    assert len(similarities) == 8
    for similarity, chance in zip(similarities, chances, strict=True):
        assert chance == pytest.approx(band_probability(similarity, rows), abs=0.005)
        texts, true = pairs_of(similarity, 250)
        bands = minhash.signatures_of(texts, rows).bands
        measured = (bands[::2] == bands[1::2]).any(axis=1).mean()
        expected = band_probability(true, rows)
        assert abs(measured - expected) <= 4 * np.sqrt(expected * (1 - expected) / 250) + 1e-3, similarity


def test_rows_let_the_threshold_be_found() -> None:
    for threshold in np.arange(0.5, 1.0, 0.01).tolist():
        rows = minhash.rows_for(threshold)
        assert band_probability(threshold, rows) >= minhash.MIN_RECALL
        assert rows == 16 or band_probability(threshold, rows + 1) < minhash.MIN_RECALL
    assert minhash.rows_for(1.0) == 16


TEXTS = [
    "",
    "！？，",
    "春",
    "春天的雨",
    "春天的雨下",
    "春天的雨下了一整夜，早上院子里的石板还是湿的。",
    f"{TRANSLATE}Tea., 茶。",
    f"{TRANSLATE}Tea came by sea as te., 茶从海上来。",
    "長" * 3000,
    "Tea is 茶, and 茶 came by sea as te.😀",
]


def test_a_key_depends_on_its_text_alone() -> None:
    together = minhash.signatures_of(TEXTS, 7, TRANSLATE)
    backwards = minhash.signatures_of(TEXTS[::-1], 7, TRANSLATE)
    for place, text in enumerate(TEXTS):
        alone = minhash.signatures_of([text], 7, TRANSLATE)
        for name in ("digests", "bands", "folded", "shingles"):
            value = getattr(together, name)[place]
            assert np.array_equal(value, getattr(alone, name)[0])
            assert np.array_equal(value, getattr(backwards, name)[len(TEXTS) - 1 - place])
    assert together.folded[:6].tolist() == [0, 0, 1, 4, 5, 21]
    assert together.shingles[:6].tolist() == [0, 0, 0, 0, 1, 17]
    assert together.shingles[6] == 0  # 茶 is a character, Tea three


def test_keys_are_equal_in_every_run() -> None:
    keys = minhash.signatures_of([TEXTS[5]], 7)
    assert keys.digests[0].tolist() == GOLDEN_DIGEST
    assert keys.bands[0][:3].tolist() == GOLDEN_BANDS


@pytest.mark.skipif(kernels.compiled is None, reason="the kernels were not built: no compiler was at hand")
@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.one_of(st.text(max_size=40), st.text("天地人，a ", max_size=300), st.sampled_from(TEXTS)), max_size=6),
    st.sampled_from(["", TRANSLATE, "天"]),
    st.integers(1, 16),
)
def test_the_kernel_gives_what_numpy_gives(texts: list[str], frame: str, rows: int) -> None:
    texts = [text.encode("utf-8", "ignore").decode() for text in texts]
    own, other = minhash.signatures_of(texts, rows, frame), minhash.reference_signatures(texts, rows, frame)
    for name in ("digests", "bands", "folded", "shingles"):
        assert np.array_equal(getattr(own, name), getattr(other, name)), name
        assert getattr(own, name).dtype == getattr(other, name).dtype
    found, expected = minhash.shingle_sets(texts, frame), minhash.reference_shingle_sets(texts, frame)
    for name in ("flat", "starts", "sizes"):
        assert np.array_equal(getattr(found, name), getattr(expected, name)), name
        assert getattr(found, name).dtype == getattr(expected, name).dtype
    first, second = np.indices((len(texts), len(texts))).reshape(2, -1)
    assert np.array_equal(minhash.overlaps(found, first, second), minhash.reference_overlaps(found, first, second))
    exact = minhash.jaccard(found, first, second)
    for least in (0.3, 0.7, 1.0, *exact[-2:].tolist()):
        values = minhash.jaccard(found, first, second, least)
        assert np.array_equal(values, np.where(exact >= least, exact, 0))


@pytest.mark.skipif(kernels.compiled is None, reason="the kernels were not built: no compiler was at hand")
def test_the_kernel_refuses_arrays_that_are_too_small() -> None:
    assert kernels.compiled is not None
    table, values, prefix = normalize.table(), ngrams.code_values(), np.zeros(0, np.uint32)
    bands = np.zeros((1, 20), np.uint64)
    for given_ in (
        (["春"], table[:10], values, prefix, 5, 20, 7, 0, bands),
        (["春"], table, values[:10], prefix, 5, 20, 7, 0, bands),
        (["春", "夏"], table, values, prefix, 5, 20, 7, 0, bands),
        (["春"], table, values, prefix, 0, 20, 7, 0, bands),
        (["春天的雨下"], np.full(0x110000, 0x110000, np.uint32), values, prefix, 5, 20, 7, 0, bands),
    ):
        with pytest.raises(ValueError, match=r"where|shape|code point"):
            kernels.compiled.signatures(*given_)
    wrong: list[Any] = [1]
    with pytest.raises(TypeError):
        kernels.compiled.signatures(wrong, table, values, prefix, 5, 20, 7, 0, bands)
    with pytest.raises(TypeError):
        kernels.compiled.shingle_sets(wrong, table, values, prefix, 5)
    for short, many in ((table[:10], values), (table, values[:10])):
        with pytest.raises(ValueError, match="where"):
            kernels.compiled.shingle_sets(["春"], short, many, prefix, 5)
    flat, out = np.arange(4, dtype=np.uint32), np.zeros(1, np.int64)
    for starts, sizes, first, least in (
        ([0, 2], [2, 2], 2, 0.5), ([0, 2], [2, 3], 0, 0.5), ([0, -1], [2, 2], 0, 0.5), ([0, 2], [2, -1], 0, 0.5),
        ([0, 2], [2, 2], 0, 1.5), ([0, 2], [2, 2], 0, float("nan")),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"set"):
            kernels.compiled.overlaps(
                flat, np.array(starts), np.array(sizes), 2, np.array([first]), np.array([0]), 1, least, out
            )


def test_the_frame_of_a_translation_is_no_shingle() -> None:
    texts = [f"{TRANSLATE}Good morning., 早上好。", f"{TRANSLATE}No smoking here., 这里禁止吸烟。"]
    first, second = np.array([0]), np.array([1])
    assert minhash.jaccard(minhash.shingle_sets(texts), first, second)[0] > 0.25
    assert minhash.jaccard(minhash.shingle_sets(texts, TRANSLATE), first, second)[0] == 0


def test_nothing_at_all() -> None:
    keys = minhash.signatures_of([], 7, TRANSLATE)
    assert (keys.digests.shape, keys.bands.shape) == ((0, 2), (0, minhash.BANDS))
    assert minhash.shingle_sets([]).starts.tolist() == minhash.reference_shingle_sets([]).sizes.tolist() == []
    nobody = np.zeros(0, dtype=np.int64)
    assert len(minhash.jaccard(minhash.shingle_sets(["", ""]), nobody, nobody)) == 0
    assert minhash.jaccard(minhash.shingle_sets(["", ""]), np.array([0]), np.array([1])).tolist() == [0]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.text("天地人 ，a", max_size=24), min_size=2, max_size=8))
def test_similarity_is_that_of_the_sets(texts: list[str]) -> None:
    first, second = (
        np.array(side) for side in zip(*[(i, j) for i in range(len(texts)) for j in range(i)], strict=True)
    )
    own = [sets(text) for text in texts]
    expected = [len(own[i] & own[j]) / max(1, len(own[i] | own[j])) for i, j in zip(first, second, strict=True)]
    assert minhash.jaccard(minhash.shingle_sets(texts), first, second).tolist() == expected


def naive(count: int, pairs: Sequence[tuple[int, int]]) -> list[int]:
    numbers = list(range(count))
    for one, other in pairs:
        low, high = sorted((numbers[one], numbers[other]))
        numbers = [low if number == high else number for number in numbers]
    return numbers


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 29), st.integers(0, 29)), max_size=60), st.integers(1, 60))
def test_clusters_are_the_connected_ones(pairs: list[tuple[int, int]], at_once: int) -> None:
    joined = Clusters(30)
    for place in range(0, len(pairs), at_once):
        part = np.array(pairs[place : place + at_once], dtype=np.uint32)
        joined.union(part[:, 0], part[:, 1])
    expected = naive(30, pairs)
    assert joined.find(np.arange(30)).tolist() == expected
    members, numbers = joined.members()
    assert members.tolist() == [place for place in range(30) if expected.count(expected[place]) > 1]
    assert numbers.tolist() == [expected[place] for place in members]


def test_a_long_chain_is_one_cluster() -> None:
    joined = Clusters(200_000)
    one = np.arange(199_999, dtype=np.uint32)
    joined.union(one, one + 1)
    assert not joined.find(one).any()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 9), max_size=40))
def test_groups_are_those_that_share_a_value(values: list[int]) -> None:
    packed = np.array(values, dtype="<u8") << 32 | np.arange(len(values), dtype="<u8")
    expected = [[place for place, other in enumerate(values) if other == value] for value in range(10)]
    shuffled = np.random.default_rng(len(values)).permutation(len(values))
    mixed = np.sort(np.random.default_rng(1).integers(0, 2**64, 10, dtype=np.uint64))[values]  # they differ everywhere
    for groups in (
        clusters.groups_by_half(packed),
        clusters.groups_by_value(np.array(values, np.uint64)[shuffled], shuffled.astype(np.uint32)),
        clusters.groups_by_value(mixed[shuffled], shuffled.astype(np.uint32)),
    ):
        found = [groups.members[groups.numbers == number].tolist() for number in range(len(values))]
        assert [group for group in found if group] == [group for group in expected if len(group) > 1]


def test_a_large_group_is_linear() -> None:
    count = 20_000
    group = clusters.Groups(np.arange(count, dtype=np.uint32), np.zeros(count, dtype=np.uint32))
    tested, found = clusters.join_similar(group, Clusters(count), lambda one, other: np.zeros(len(one), dtype=np.bool_))
    assert (tested, found) == (sum(count - 1 - turn for turn in range(MAX_ROUNDS)), 0)
    tested, found = clusters.join_similar(group, Clusters(count), lambda one, other: np.ones(len(one), dtype=np.bool_))
    assert (tested, found) == (count - 1, count - 1)


def test_within_small_groups_every_pair_is_tested() -> None:
    count = MAX_ROUNDS + 1
    asked = set[tuple[int, int]]()

    def alike(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        asked.update(zip(one.tolist(), other.tolist(), strict=True))
        return np.zeros(len(one), dtype=np.bool_)

    group = clusters.Groups(np.arange(count, dtype=np.uint32), np.zeros(count, dtype=np.uint32))
    clusters.join_similar(group, Clusters(count), alike)
    assert asked == {(one, other) for other in range(count) for one in range(other)}


def test_a_pair_is_tested_once() -> None:
    asked: list[tuple[int, int]] = []

    def alike(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        asked.extend(zip(one.tolist(), other.tolist(), strict=True))
        return np.asarray((one + other) % 3 == 0)

    random = np.random.default_rng(4)
    members = np.concatenate([np.sort(random.choice(12, 5, replace=False)) for _ in range(30)]).astype(np.uint32)
    joined = Clusters(12)
    tested, found = clusters.join_similar(clusters.Groups(members, np.repeat(np.arange(30), 5)), joined, alike)
    assert (len(asked), found) == (tested, sum((one + other) % 3 == 0 for one, other in asked))
    assert len(set(asked)) == tested
    assert joined.find(np.arange(12)).tolist() == naive(12, [pair for pair in asked if sum(pair) % 3 == 0])


def test_a_chain_is_taken_apart() -> None:
    def similarity(one: np.ndarray, other: np.ndarray, least: float) -> np.ndarray:
        return np.asarray(np.maximum(0, 1 - np.abs(one.astype(float) - other.astype(float)) / 10))

    members = np.arange(10, dtype=np.uint32)
    ranks = np.array([1, 1, 1, 0, 1, 1, 1, 1, 1, 1])
    kept, values = clusters.pick_kept(members, np.zeros(10, dtype=np.uint32), ranks, similarity, 0.8)
    assert kept.tolist() == [0, 3, 3, 3, 3, 3, 6, 6, 6, 9]
    assert values.min() >= 0.8
    long = np.arange(5 * MAX_TURNS, dtype=np.uint32)
    kept, values = clusters.pick_kept(long, np.zeros(len(long), dtype=np.uint32), np.zeros(len(long)), similarity, 0.8)
    assert (values >= 0.8).all()
    gone = kept != long
    assert gone[: 3 * MAX_TURNS].sum() == 2 * MAX_TURNS
    assert not gone[3 * MAX_TURNS :].any()
