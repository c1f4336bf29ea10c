"""Runs of characters that documents share: the search against a reference that compares everything with everything."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from corpus.pipeline import kernels
from corpus.pipeline.dedup import places, span_texts, spans, winnowing
from corpus.pipeline.dedup.keys import shards_of
from corpus.pipeline.dedup.places import Runs
from corpus.pipeline.progress import SILENT
from corpus.pipeline.signatures.files import KEEP_FIRST, SignatureStore
from corpus.pipeline.storage.selection import documents_of
from corpus.pipeline.text import ngrams
from corpus.pipeline.workspace.layout import Workspace
from tests.benchmarks.duplicates import Row, lay_documents
from tests.support.copies import random_texts, rows

Found = set[tuple[int, int, int, int, int]]
"""Runs as (document, position, length, first document, position in it)."""


def laid(folder: Path, shards: list[list[Row]]) -> SignatureStore:
    workspace = Workspace(folder)
    lay_documents(workspace, "demo", shards)
    return SignatureStore(shards_of(workspace, {"demo": documents_of(workspace, "demo")}, 0.7))


def found_in(
    folder: Path,
    shards: list[list[Row]],
    least: int,
    *,
    out: Sequence[int] = (),
    workers: int = 1,
    partitions: int = 0,
) -> Found:
    store = laid(folder, shards)
    stays = np.ones(store.count, dtype=np.bool_)
    stays[[*out]] = False
    texts = [text for shard in shards for _, _, text in shard]
    with spans.search(
        store, stays, least, folder / "dedup", workers=workers, progress=SILENT, partitions=partitions
    ) as found:
        runs = found.runs
        columns = (
            places.documents_of(runs.places), places.positions_of(runs.places), runs.lengths,
            places.documents_of(runs.firsts), places.positions_of(runs.firsts),
        )  # fmt: skip
        listed = list(zip(*(column.tolist() for column in columns), strict=True))
        for number, (document, begin, length, first, at) in enumerate(listed):
            own = texts[document][begin : begin + length]
            assert own == texts[first][at : at + length] == found.texts.text(runs.firsts[number], length)
    assert listed == sorted(listed)
    assert not list((folder / "dedup").iterdir())
    return set(listed)


def reference(shards: list[list[Row]], least: int, *, out: Sequence[int] = ()) -> Found:
    """Every place whose characters an earlier document has, with the first place that has them; neighbours joined."""
    laid_rows = [row for shard in shards for row in shard]
    documents = [(KEEP_FIRST.index(split), number, text) for number, (_, split, text) in enumerate(laid_rows)]
    seen: dict[str, tuple[int, int]] = {}
    found: list[list[int]] = []
    for _, number, text in sorted(document for document in documents if document[1] not in out):
        for at in range(len(text) - least + 1):
            first, place = seen.setdefault(text[at : at + least], (number, at))
            if first == number:
                continue
            last = found[-1] if found else [-1] * 5
            grown = last[2] - least + 1
            if last == [number, at - grown, last[2], first, place - grown]:
                last[2] += 1
            else:
                found.append([number, at, least, first, place])
    return {(run[0], run[1], run[2], run[3], run[4]) for run in found}


TEXTS = st.one_of(
    st.text("ab", max_size=24), st.text("春雨夜abc", max_size=30), st.integers(0, 30).map(lambda times: "ab" * times)
)
ROWS = st.lists(st.tuples(st.sampled_from(KEEP_FIRST), TEXTS), min_size=1, max_size=8)


@given(
    documents=ROWS, least=st.integers(2, 9), size=st.integers(1, 8), partitions=st.sampled_from([0, 3, 16]),
    out=st.sets(st.integers(0, 7), max_size=2),
)  # fmt: skip
@settings(max_examples=25, deadline=None)
@example([("train", "a" * 30), ("train", "a" * 30)], 4, 1, 1, set())
def test_what_is_found_is_what_a_reference_finds(
    documents: list[tuple[str, str]], least: int, size: int, partitions: int, out: set[int]
) -> None:
    made = [(str(number), split, text) for number, (split, text) in enumerate(documents)]
    shards = [made[begin : begin + size] for begin in range(0, len(made), size)]
    gone = [number for number in sorted(out) if number < len(made)]
    with TemporaryDirectory() as folder:
        found = found_in(Path(folder), shards, least, out=gone, partitions=partitions)
    expected = reference(shards, least, out=gone)
    assert found <= expected
    assert covered(found) == covered(expected)
    assert all(covered(found - {run}) < covered(found) for run in found)  # none too many


def covered(runs: Found) -> set[tuple[int, int]]:
    """The characters of runs, as (document, position)."""
    return {(document, at) for document, begin, length, _, _ in runs for at in range(begin, begin + length)}


def test_repetitions_of_a_character_make_few_runs(tmp_path: Path) -> None:
    shards = [rows("-" * 150, "春" + "-" * 1000 + "雨", "- " * 60, "- " * 500)]
    found = found_in(tmp_path, shards, 100)
    assert len(reference(shards, 100)) > 1000
    assert {run[:3] for run in found if run[0] == 1} == {(1, at, 100) for at in range(1, 1000, 100)}
    assert covered(found) == covered(reference(shards, 100))
    assert len(found) <= 21


def test_a_run_of_just_enough_characters_is_found_and_a_shorter_one_is_not(tmp_path: Path) -> None:
    shared, *others = random_texts(13, 200)
    a, b, c, d, e, f, g, h, i, j, k, l_ = others
    documents = [
        shared + a, b + shared, c + shared + d, shared,  # at both ends, in the middle, alone
        e + shared[1:] + f, g + shared[:-1], shared[:199],  # one character less
        h + shared + i + shared + j,  # twice
        k[:150], k[:150] + l_,
    ]  # fmt: skip
    shards = [rows(*documents[begin : begin + 3]) for begin in range(0, len(documents), 3)]
    expected = {(1, 200, 200, 0, 0), (2, 200, 200, 0, 0), (3, 0, 200, 0, 0), (7, 200, 200, 0, 0), (7, 600, 200, 0, 0)}
    assert found_in(tmp_path, shards, 200) == expected == reference(shards, 200)


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(tmp_path: Path, workers: int) -> None:
    shared, *others = random_texts(9, 120, 7)
    shards = [rows(*(text[:60] + shared + text[60:] for text in others[at : at + 2])) for at in range(0, 8, 2)]
    assert found_in(tmp_path, shards, 100, workers=workers, partitions=3) == reference(shards, 100)


def test_a_run_that_thousands_share_costs_what_it_is_long(tmp_path: Path) -> None:
    notice = random_texts(1, 90)[0]
    texts = [f"{own}{chr(0x4E00 + number)}{notice}" for number, own in enumerate(random_texts(3000, 20, 5))]
    store = laid(tmp_path, [rows(*texts[:1500]), rows(*texts[1500:])])
    stays = np.ones(store.count, dtype=np.bool_)
    with spans.search(store, stays, 80, tmp_path / "dedup", workers=1, progress=SILENT) as found:
        assert len(found.runs.places) == 2999
        assert found.counts["candidate_characters"] <= 32 * 3000  # the places in a text where 80 characters begin
        assert len(found.texts.begins) == 1


def test_runs_that_hashes_took_for_equal_are_compared_and_divided(tmp_path: Path) -> None:
    one, other = random_texts(2, 100, 9)
    texts = [one, one[:40] + other[40:41] + one[41:], other]
    store = laid(tmp_path, [rows(*texts)])
    begins = places.places_of(np.full(3, 2), np.array([1, 2, 1]), np.array([0, 0, 60]))
    firsts = places.places_of(np.full(3, 2), np.zeros(3, np.int64), np.array([0, 0, 60]))
    claimed = Runs(begins, np.array([100, 100, 30]), firsts)
    held = span_texts.SpanTexts(tmp_path / "texts", claimed)
    for stored in held.pieces(store.shards):
        assert span_texts.write(stored, file=held.path) == 100
    (piece,) = held.checks(store.shards, claimed)
    kept = span_texts.compare(piece, file=held.path, least=30)
    at = zip(places.documents_of(kept.places), places.positions_of(kept.places), kept.lengths, strict=True)
    assert [*map(tuple, np.array([*at]).tolist())] == [(1, 0, 40), (1, 41, 59), (1, 60, 30)]
    assert places.positions_of(kept.firsts).tolist() == [0, 41, 60]


@pytest.mark.skipif(kernels.compiled is None, reason="the kernels were not built: no compiler was at hand")
@given(
    texts=st.lists(st.one_of(TEXTS, st.text(st.characters(exclude_categories=["Cs"]))), max_size=6),
    least=st.integers(2, 12),
)
@settings(max_examples=100, deadline=None)
def test_the_kernel_chooses_what_numpy_chooses(texts: list[str], least: int) -> None:
    one, other = winnowing.fingerprints(texts, least), winnowing.reference_fingerprints(texts, least)
    for name in ("hashes", "positions", "counts"):
        assert getattr(one, name).tolist() == getattr(other, name).tolist()


@pytest.mark.skipif(kernels.compiled is None, reason="the kernels were not built: no compiler was at hand")
@given(texts=st.lists(st.text("春雨a𠀀", min_size=6, max_size=40), min_size=1, max_size=4), draw=st.data())
@settings(max_examples=60, deadline=None)
def test_the_kernel_hashes_what_numpy_hashes(texts: list[str], draw: st.DataObject) -> None:
    gram, parts = draw.draw(st.integers(1, 6)), list[tuple[int, int, int]]()
    for owner in draw.draw(st.lists(st.integers(0, len(texts) - 1), max_size=5)):
        begin = draw.draw(st.integers(0, len(texts[owner]) - gram))
        parts.append((owner, begin, draw.draw(st.integers(1, len(texts[owner]) - gram - begin + 1))))
    columns = winnowing.Parts(*np.array(parts, np.int64).reshape(-1, 3).T)
    found = winnowing.gram_hashes(texts, columns, gram)
    assert found.tolist() == winnowing.reference_gram_hashes(texts, columns, gram).tolist()


def test_every_window_has_a_fingerprint_and_few_places_are_one() -> None:
    (text,) = random_texts(1, 20_000)
    found = winnowing.fingerprints([text], 200)
    _, window = winnowing.shape(200)
    assert found.positions[0] < window
    assert np.diff(found.positions.astype(np.int64)).max() <= window
    assert 0.9 < len(found.positions) * (window + 1) / 2 / len(text) < 1.1


@pytest.mark.skipif(kernels.compiled is None, reason="the kernels were not built: no compiler was at hand")
def test_the_kernel_refuses_what_is_no_shape() -> None:
    assert kernels.compiled is not None
    values = ngrams.code_values()
    for gram, window in ((0, 5), (5, 0), (2**40, 5)):
        with pytest.raises(ValueError, match="no such shape"):
            kernels.compiled.winnow(["春"], values, gram, window)
    with pytest.raises(ValueError, match="bytes"):
        kernels.compiled.winnow(["春"], values[:100], 2, 2)
    with pytest.raises(TypeError):
        kernels.compiled.winnow([b"a"], values, 1, 1)  # type: ignore[list-item]  # what is no text
    one, out = np.zeros(1, np.int64), np.zeros(9, np.uint64)
    for owner, begin, count, says in (
        (1, 0, 1, "no such text"), (-1, 0, 1, "no such text"), (0, 3, 1, "outside"), (0, -1, 1, "outside"),
        (0, 0, 4, "outside"), (0, 0, 0, "outside"), (0, 0, 2**62, "outside"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=says):
            kernels.compiled.gram_hashes(["春雨夜雪"], values, 2, one + owner, one + begin, one + count, 1, out, 9)
    with pytest.raises(ValueError, match="outside"):
        kernels.compiled.gram_hashes(["春雨夜雪"], values, 2, one, one, one + 3, 1, out, 2)
    with pytest.raises(ValueError, match="bytes"):
        kernels.compiled.gram_hashes(["春雨夜雪"], values, 2, one, one, one, 2, out, 9)
    with pytest.raises(ValueError, match="at least two"):
        winnowing.shape(1)
