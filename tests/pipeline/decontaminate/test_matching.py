"""Texts of evaluation items in texts: what is found and what is not, where it is, and which hits are phrases."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corpus.pipeline import kernels
from corpus.pipeline.decontaminate import matching
from corpus.pipeline.decontaminate.matching import LONG_SPAN_WEIGHT, Hit, PhraseFilter, find_hits
from corpus.pipeline.decontaminate.ngram_index import (
    LINE_HEAD,
    MIN_SPAN_WEIGHT,
    NGRAM,
    WIDE_WEIGHT,
    Index,
    Owner,
    build_index,
)
from corpus.pipeline.text.normalize import fold, fold_all
from tests.benchmarks import contamination as benchmark
from tests.support.items import CONTEXT, SHORT, SOME, prose

ENGLISH = (
    "The old ferryman said that before the stone bridge was built more than three hundred people crossed the river here"
)


def index_of(*texts: str) -> Index:
    return build_index((Owner("set", number, "text"), text) for number, text in enumerate(texts, 1))


def only(index: Index, *texts: str, min_share: float = matching.MIN_SHARE) -> list[Hit]:
    return list(find_hits(index, texts, min_share))


def test_spans_are_exact_around_marks_and_astral_characters() -> None:
    index = index_of(CONTEXT)
    text = f"😀😀——「{CONTEXT[:30]}」😀{CONTEXT[30:]}𠮷"
    (hit,) = only(index, prose(1), text)
    assert (hit.document, hit.share) == (1, 1)
    longest = CONTEXT[30:-1]
    assert text[slice(*hit.span)] == longest
    assert [text[start:end] for start, end in hit.spans] == [f"{CONTEXT[:30].strip('，')}」😀{longest}"]


def test_a_typo_parts_a_span_and_a_gap_is_not_left_in_between() -> None:
    index = index_of(CONTEXT)
    text = CONTEXT.replace("赶集", "赶计")
    (hit,) = only(index, text)
    assert 0.9 < hit.share < 1
    assert len(hit.shared) == 2
    assert [text[start:end] for start, end in hit.spans] == [text[:-1]]


def test_a_short_text_counts_only_as_a_whole_line() -> None:
    index = index_of(SHORT, "渡口归谁管理")
    assert len(index.owners) == 1  # fewer than 8 characters are not looked for
    for text in (SHORT, f"好。\n {SHORT}？\n好。", f"{SHORT}\n", "从前\n渡口从前，\n归誰管理呢？"):
        (hit,) = only(index, text)
        assert fold(text[slice(*hit.span)]) == fold(SHORT)
    for text in (f"是{SHORT}", f"{SHORT}吗\n", "渡口从前归\n谁管理", f"\n好{SHORT}", "渡口从前归", ""):
        assert not only(index, text)
    assert not only(index, SHORT[:4], SHORT[4:])  # not across documents
    assert [hit.document for hit in only(index, "", SHORT, "", SHORT)] == [1, 3]


def test_letters_weigh_less_than_characters() -> None:
    formula = r"$\overrightarrow{\mathrm{AB}}=\frac{1}{2}\mathrm{CD}$"
    index = index_of(f"已知向量满足{formula}求夹角", ENGLISH)
    assert only(index, f"已知向量满足{formula}")
    assert not only(index, f"解得{formula}故选甲", ENGLISH[:45])
    (hit,) = only(index, f"{prose(1)} {ENGLISH.upper()}!")
    assert hit.share == 1
    assert hit.longest == len(fold(ENGLISH))
    asked = "Who built the stone bridge across the river?"
    (hit,) = only(index_of(asked), f"Well.\n{asked.upper()}\nWell.")
    assert not only(index_of(asked), f"I asked: {asked}")


def test_instructions_of_the_set_decide_nothing_but_belong_to_an_item() -> None:
    task = "阅读下面的文字，然后从四个说法里选出不正确的那一项来"
    items = [f"{task}：{SOME[number]}" for number in range(12)]
    index = index_of(*items, CONTEXT)
    assert index.common_ngrams == len(fold(task)) - NGRAM + 1
    assert not only(index, f"{task}。", min_share=0.01)
    (hit,) = only(index, f"老师说：{items[4]}")
    assert (hit.passage, hit.share) == (4, 1)
    few = index_of(*items[:10])
    assert few.common_ngrams == 0
    assert len(only(few, task, min_share=0.1)) == 10


def test_equal_texts_are_one_passage_and_no_instruction() -> None:
    index = build_index((Owner("set", number, "context"), CONTEXT + "！" * (number % 2)) for number in range(30))
    assert (len(index.owners), index.common_ngrams) == (1, 0)
    assert [owner.item for owner in index.owners[0]] == list(range(30))
    assert len(only(index, CONTEXT)) == 1


def test_what_repeats_itself_is_not_looked_for() -> None:
    index = index_of("哈" * 500, "啦啦呀" * 100 + CONTEXT)
    assert not only(index, "哈" * 100_000, "啦啦呀" * 100)
    assert len(only(index, CONTEXT, min_share=0.1)) == 1


def test_phrases_of_the_language_are_no_hits() -> None:
    phrase = "各位乡亲父老兄弟姐妹们大家新年好呀"
    index = index_of(f"{phrase}，这话是谁说的", CONTEXT)
    texts = [f"{prose(number)}{phrase}。" for number in range(11)]
    hits = only(index, *texts, f"{phrase}，这话是谁说的", *[CONTEXT] * 20)
    assert len(hits) == 32
    phrases = PhraseFilter(index)
    first = [phrases.add(hit) for hit in hits]
    assert first == [True] * 10 + [False] * 2 + [True] * 20
    assert [phrases.holds(hit) for hit in hits] == [False] * 12 + [True] * 20
    few = PhraseFilter(index)
    assert all(few.add(hit) for hit in hits[:10])


def test_a_long_quotation_that_everyone_quotes_is_a_phrase() -> None:
    poem = "山静云初起，溪寒石半斜。一灯归夜渡，数犬吠人家。旧约迟春信，新醅对晚霞。不知桥外路，开尽几重花。"
    assert WIDE_WEIGHT * len(fold(poem)) == LONG_SPAN_WEIGHT
    index = index_of(f"{poem}{CONTEXT}")
    hits = only(index, *[f"{prose(number)}\n{poem}" for number in range(11)])
    assert all(hit.share < 0.5 and hit.longest >= LONG_SPAN_WEIGHT for hit in hits)
    phrases = PhraseFilter(index)
    assert [phrases.add(hit) for hit in hits[:10]] == [True] * 10
    assert not phrases.add(hits[10])


def test_documents_are_found_in_whatever_block_they_stand() -> None:
    index = index_of(CONTEXT, SHORT)
    texts = [prose(n) + (CONTEXT if n % 5 == 0 else "") + (f"\n{SHORT}" if n % 7 == 0 else "") for n in range(40)]
    whole = only(index, *texts)
    assert list(find_hits(index, texts, block_characters=700)) == whole
    assert [(hit.document, hit.passage) for hit in whole] == [
        (n, passage) for n in range(40) for passage, every in enumerate((5, 7)) if n % every == 0
    ]


def test_equal_hashes_are_no_hits(monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np

    index = index_of(CONTEXT)
    monkeypatch.setattr(kernels, "compiled", None)
    monkeypatch.setattr(matching, "ngram_hashes", lambda codes, n: np.full(max(0, len(codes) - n + 1), index.grams[0]))
    assert not only(index, prose(1), min_share=0.01)


def test_nothing_to_look_for_finds_nothing() -> None:
    assert not only(index_of("短"), CONTEXT)
    assert not only(index_of(CONTEXT))
    assert not only(index_of(CONTEXT), "", "\n", "。")


def runs_by_hand(text: str, passage: str) -> list[tuple[int, int, int]]:
    """Maximal equal spans of at least an n-gram, the slow way."""
    found = []
    for at in range(len(text)):
        for place in range(len(passage)):
            if at and place and text[at - 1] == passage[place - 1]:
                continue
            length = 0
            while (
                at + length < len(text)
                and place + length < len(passage)
                and text[at + length] == passage[place + length]
            ):
                length += 1
            if length >= NGRAM:
                found.append((at, place, length))
    return found


FEW = st.text("甲乙", min_size=NGRAM, max_size=60)


@settings(max_examples=150, deadline=None)
@given(passages=st.lists(FEW, min_size=1, max_size=3, unique=True), texts=st.lists(FEW, max_size=4))
def test_the_same_is_found_as_by_hand(passages: list[str], texts: list[str]) -> None:
    index = index_of(*passages)
    hits = {(hit.document, hit.passage): hit for hit in only(index, *texts, min_share=0.001)}
    for number, text in enumerate(texts):
        for passage, asked in enumerate(passages):
            runs = runs_by_hand(text, asked)
            hit = hits.pop((number, passage), None)
            assert (hit is not None) == bool(runs)
            if hit is not None:
                shared = {place + step for _, place, length in runs for step in range(length)}
                assert hit.share == pytest.approx(len(shared) / len(asked))
                assert hit.longest == WIDE_WEIGHT * max(length for *_, length in runs)
                start = int(index.starts[passage])
                assert {place for first, last in hit.shared for place in range(first - start, last - start)} == shared
                covered = {at + step for at, _, length in runs for step in range(length)}
                assert covered <= {at for first, last in hit.spans for at in range(first, last)}
    assert not hits


LINES = st.lists(st.text("甲乙，𠮷 ", max_size=20), max_size=5).map("\n".join)


@pytest.mark.skipif(kernels.compiled is None, reason="the kernels were not built: no compiler was at hand")
@settings(max_examples=150, deadline=None)
@given(passages=st.lists(LINES, min_size=1, max_size=3, unique=True), texts=st.lists(LINES, max_size=4))
def test_candidates_have_a_span_or_the_head_of_a_line(passages: list[str], texts: list[str]) -> None:
    index = index_of(*passages)
    heavy = [fold(passage) for passage in passages if WIDE_WEIGHT * len(fold(passage)) >= MIN_SPAN_WEIGHT]
    grams = {span[at : at + NGRAM] for span in heavy for at in range(len(span) - NGRAM + 1)}
    heads = {fold(text)[:LINE_HEAD] for text in passages if LINE_HEAD <= len(fold(text)) < NGRAM}
    expected = []
    for number, text in enumerate(texts):
        folded, lines = fold(text), text.split("\n")
        has_gram = any(folded[at : at + NGRAM] in grams for at in range(len(folded) - NGRAM + 1))
        if has_gram or any(fold("".join(lines[first:]))[:LINE_HEAD] in heads for first in range(len(lines))):
            expected.append(number)
    assert list(matching.candidates(index, texts)) == expected


@pytest.mark.skipif(kernels.compiled is None, reason="the kernels were not built: no compiler was at hand")
def test_a_span_of_letters_makes_a_candidate_only_where_it_is_long() -> None:
    task = "阅读下面的文字，然后从四个说法里选出不正确的那一项来"
    index = index_of(ENGLISH, *[f"{task}：{SOME[number]}" for number in range(12)])
    texts = [
        ENGLISH[:40],
        ENGLISH,
        f"{ENGLISH[:30]}. {ENGLISH[40:70]}",
        f"好{ENGLISH[10:80]}",
        task,
        f"{task}：{SOME[3]}",
    ]
    assert list(matching.candidates(index, texts)) == [1, 3, 5]


@pytest.mark.skipif(kernels.compiled is None, reason="the kernels were not built: no compiler was at hand")
@settings(max_examples=100, deadline=None)
@given(passages=st.lists(LINES, min_size=1, max_size=3, unique=True), texts=st.lists(LINES, max_size=4))
def test_the_kernel_loses_no_hit(passages: list[str], texts: list[str]) -> None:
    index = index_of(*passages)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "compiled", None)
        reference = only(index, *texts, min_share=0.001)
    assert only(index, *texts, min_share=0.001) == reference


HAN = st.text(st.characters(min_codepoint=0x4E00, max_codepoint=0x9FA5), min_size=NGRAM, max_size=120)
ANY = st.text(st.characters(exclude_categories=["Cs"]), max_size=120)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(passage=HAN, before=ANY, after=ANY, seed=st.integers(0, 2**32))
def test_a_planted_passage_is_always_found(passage: str, before: str, after: str, seed: int) -> None:
    chance = random.Random(seed)
    (hit,) = only(index_of(passage), before + benchmark.repunctuated(passage, chance) + after)
    assert hit.share == 1


@settings(max_examples=100, deadline=None)
@given(passage=ANY, text=ANY)
def test_texts_that_share_no_ngram_are_no_hit(passage: str, text: str) -> None:
    asked, codes = fold(passage), fold(text)
    grams = {codes[at : at + NGRAM] for at in range(len(codes) - NGRAM + 1)}
    shared = any(asked[at : at + NGRAM] in grams for at in range(len(asked) - NGRAM + 1))
    line = any(asked and asked in fold("".join(text.split("\n")[first:])) for first in range(text.count("\n") + 1))
    if not shared and not line:
        assert not only(index_of(passage), text, min_share=0.01)


def test_what_is_planted_into_the_built_in_texts_is_found() -> None:
    items, hosts = benchmark.built_in()
    index = build_index(items)
    texts = benchmark.passages(items, index)
    unrelated = benchmark.unrelated(index, [text for texts in hosts.values() for text in texts])
    assert len(unrelated) > 80
    for name in benchmark.FOLDED:
        change = benchmark.CHANGES[name]
        table, missed = benchmark.found_share(index, texts, unrelated, change, 1000, random.Random(1))
        assert not missed, name
        assert all(made > 50 for _, made in table.values())
    table, _ = benchmark.found_share(index, texts, unrelated, benchmark.typos(1), 1000, random.Random(1))
    assert table["long"][0] == table["long"][1]
    assert fold_all(texts).codes.tobytes() == index.codes.tobytes()
