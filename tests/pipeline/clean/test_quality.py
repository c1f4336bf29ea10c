"""Filter rules: a golden folder with both sides of every border, and the properties that hold for every text."""

from __future__ import annotations

import json
import random
import time
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from corpus.pipeline import manifest as manifests
from corpus.pipeline.clean.boilerplate import trim
from corpus.pipeline.clean.parts import swapped
from corpus.pipeline.clean.pii import mask_all
from corpus.pipeline.clean.quality import QUALITY, RULES, Document, Limits, judge, judge_all
from corpus.pipeline.clean.rules import clean_all, rules
from corpus.pipeline.documents.transform import limits_of
from corpus.pipeline.manifest import CORPORA, Manifest
from corpus.pipeline.templates import composer
from tests.support.records import ROOT, examples

GOLDEN = ROOT / "tests" / "golden"
NAMES = tuple(rule.name for rule in RULES)
LONG_HEAD = "如何在命令行里用一条管道统计日志中每个来源的请求次数？"

Case = dict[str, Any]


@cache
def load(dataset: str) -> tuple[Manifest, Limits]:
    manifest = manifests.load(dataset)
    return manifest, limits_of(manifest, manifest.min_length)


def document(dataset: str, parts: list[str]) -> Document:
    shape = load(dataset)[0].shapes[dataset]
    return Document(*composer(shape)(parts), shape.form, parts)


def read(path: Path) -> list[Case]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


FILTER = {name: read(GOLDEN / "filter" / f"{name}.jsonl") for name in NAMES}
SWAP = read(GOLDEN / "swap.jsonl")


# --- golden cases -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, id=f"{name}.jsonl:{line}") for name in NAMES for line, case in enumerate(FILTER[name], 1)],
)
def test_golden(case: Case) -> None:
    made = document(case["dataset"], case["parts"])
    limits = load(case["dataset"])[1]
    verdict = judge(made, limits)
    assert (verdict and verdict[0]) == case["reason"], verdict
    assert judge_all([made], limits) == [verdict]


@pytest.mark.parametrize("name", NAMES)
def test_both_sides_of_every_border_have_cases(name: str) -> None:
    cases = FILTER[name]
    assert {case["reason"] for case in cases} == {name, None}
    assert sum(case["reason"] is None for case in cases) >= 20
    assert sum(case["reason"] == name for case in cases) >= 20
    assert len({(case["dataset"], *case["parts"]) for case in cases}) == len(cases)


def test_every_golden_file_has_its_rule() -> None:
    assert {path.name for path in (GOLDEN / "filter").iterdir()} == {f"{name}.jsonl" for name in NAMES}
    assert tuple(NAMES[1:]) == QUALITY


@pytest.mark.parametrize("dataset", CORPORA)
def test_golden_parts_are_what_cleaning_leaves(dataset: str) -> None:
    manifest = load(dataset)[0]
    cases = [case["parts"] for name in NAMES for case in FILTER[name] if case["dataset"] == dataset]
    texts = [part for parts in cases for part in parts]
    table = rules(simplify=manifest.simplify, brackets=manifest.drop_empty_brackets)
    assert clean_all(texts, table).texts == texts
    assert mask_all(list(texts), manifest.quality.mask)[0] == texts
    if manifest.quality.trim:
        assert [trim(parts[-1]) for parts in cases] == [parts[-1] for parts in cases]
    if manifest.shapes[dataset].form == "translation":
        assert swapped(texts) == []


@pytest.mark.parametrize("dataset", CORPORA)
def test_golden_verdicts_do_not_depend_on_neighbours(dataset: str) -> None:
    cases = [case for name in NAMES for case in FILTER[name] if case["dataset"] == dataset]
    random.Random(4).shuffle(cases)
    verdicts = judge_all([document(dataset, case["parts"]) for case in cases], load(dataset)[1])
    assert [verdict and verdict[0] for verdict in verdicts] == [case["reason"] for case in cases]


@pytest.mark.parametrize("case", [pytest.param(case, id=f"swap.jsonl:{line}") for line, case in enumerate(SWAP, 1)])
def test_golden_swap(case: Case) -> None:
    assert swapped(case["parts"]) == ([0] if case["swapped"] else [])


def test_swapped_pairs_are_named_by_their_position() -> None:
    assert sum(case["swapped"] for case in SWAP) >= 20
    assert sum(not case["swapped"] for case in SWAP) >= 20
    sides = [side for case in SWAP for side in case["parts"]]
    assert swapped(sides) == [2 * index for index, case in enumerate(SWAP) if case["swapped"]]
    assert swapped([]) == []


# --- what a quick look at all characters could miss -------------------------------------------------------------


def article(text: str, title: str = "") -> Document:
    parts = [title, text]
    return Document(*composer(load("wiki2019zh")[0].shapes["wiki2019zh"])(parts), "article", parts)


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (article("斤拷" * 8 + "把这一页写坏了，谁也看不懂上面说的是什么事"), "broken_encoding"),
        (article("\ufffd" * 32768), "broken_encoding"),
        (article("\ufffd" * 65536 + "末尾"), "broken_encoding"),
        (article(f"{LONG_HEAD}\n\n{' ' * 60}sort", LONG_HEAD), "stub"),
        (article("囧囧囧囧囧，" + "又把伞忘在地铁上了，回去找的时候，早已经被别人拿走了"), None),
    ],
)
def test_the_quick_look_misses_nothing(made: Document, reason: str | None) -> None:
    limits = load("wiki2019zh")[1]
    verdict = judge(made, limits)
    assert (verdict and verdict[0]) == reason
    assert judge_all([made], limits) == [verdict]


def test_a_text_of_blanks_has_little_han() -> None:
    blank = Document("\n \n", 0, "article", ["", "\n \n"])
    limits = Limits(min_length=0, min_han=0.1)
    assert judge(blank, limits) == ("little_han", "0.00 of at least 0.10 are Han")
    assert judge_all([blank], limits) == [judge(blank, limits)]


# --- properties -------------------------------------------------------------------------------------------------

FRAGMENTS = [
    *("清早的雾还没有散，", "船已经开了。", "他写道：", "The boat has left. ", "the quick look ", "12:30，", "$x^2$"),
    *"哈啊囧甲乙丙丁屯鍦閽钁銆〇䷀Ⅷ½𠮷😀かん한äïa0！—、 ",
    *(
        "[蜡烛]",
        "加微信",
        "包邮",
        "扫码",
        "优惠券",
        "名额有限",
        "锟斤拷",
        "斤拷",
        "烫烫烫",
        "ï¿½",
        "â€",
        "Ã©",
        "\ufffd",
    ),
    *("\n", "\n\n", "    ", "同一行\n", "又是同一行，长一些\n"),
]
TEXTS = st.lists(st.tuples(st.sampled_from(FRAGMENTS), st.integers(1, 40)), max_size=8).map(
    lambda pieces: "".join(fragment * times for fragment, times in pieces)
)
LONG_TEXTS = st.builds(lambda text, times: text * times, TEXTS, st.sampled_from([1, 1, 1, 2, 7]))
LIMITS = st.builds(
    Limits,
    min_length=st.sampled_from([0, 10, 40, 64]),
    min_han=st.sampled_from([0.0, 0.02, 0.1, 0.5]),
    adverts=st.booleans(),
    off=st.frozensets(st.sampled_from(QUALITY), max_size=4),
)


@st.composite
def batches(draw: st.DrawFn) -> list[Document]:
    """Documents of one form; now and then a part says again what another does."""
    dataset = draw(st.sampled_from(["wiki2019zh", "baike2018qa", "translation2019zh"]))
    width = 3 if dataset == "baike2018qa" else 2
    made: list[Document] = []
    for _ in range(draw(st.integers(0, 6))):
        parts = [draw(LONG_TEXTS) for _ in range(width)]
        again = draw(st.sampled_from(["", "same", "begins", "marks"]))
        if again == "same":
            parts[-1] = parts[0]
        elif again == "begins":
            parts[-1] = f"{parts[0]}\n\n{parts[-1]}"
        elif again == "marks":
            parts[-1] = "".join(parts[:-1]).upper() + "。？"
        made.append(document(dataset, parts))
    return made


@settings(max_examples=examples(500), deadline=None, derandomize=True)
@given(batches(), LIMITS)
@example([article("")], Limits(min_length=0))
@example([document("baike2018qa", ["ßßß", "", "ssssss"])], Limits(min_length=0))
@example([article("鍦閽钁" * 9), article("哈" * 25), article("清早" * 99)], Limits(min_length=0, min_han=0.1))
def test_judge_all_is_judge(documents: list[Document], limits: Limits) -> None:
    assert judge_all(documents, limits) == [judge(each, limits) for each in documents]


@settings(max_examples=150, deadline=None, derandomize=True)
@given(batches(), LIMITS, st.randoms(use_true_random=False))
def test_order_and_neighbours_do_not_matter(documents: list[Document], limits: Limits, chance: random.Random) -> None:
    verdicts = dict(enumerate(judge_all(documents, limits)))
    order = list(verdicts)
    chance.shuffle(order)
    assert judge_all([documents[index] for index in order], limits) == [verdicts[index] for index in order]
    half = order[: len(order) // 2]
    assert judge_all([documents[index] for index in half], limits) == [verdicts[index] for index in half]


@settings(max_examples=150, deadline=None, derandomize=True)
@given(batches(), LIMITS)
def test_switched_off_rules_do_not_drop(documents: list[Document], limits: Limits) -> None:
    left = [rule for rule in RULES if rule.name not in limits.off]
    verdicts = judge_all(documents, limits)
    assert not limits.off & {verdict[0] for verdict in verdicts if verdict}
    on = Limits(min_length=limits.min_length, min_han=limits.min_han, adverts=limits.adverts)
    assert verdicts == [judge(each, on, left) for each in documents]
    none = Limits(min_length=limits.min_length, min_han=limits.min_han, adverts=True, off=frozenset(QUALITY))
    assert {verdict and verdict[0] for verdict in judge_all(documents, none)} <= {None, "empty"}


@pytest.mark.parametrize("name", QUALITY)
def test_each_rule_can_be_switched_off(name: str) -> None:
    for case in FILTER[name]:
        manifest, limits = load(case["dataset"])
        off = Limits(
            min_length=manifest.min_length, min_han=limits.min_han, adverts=limits.adverts, off=frozenset({name})
        )
        made = document(case["dataset"], case["parts"])
        verdict = judge(made, off)
        assert judge_all([made], off) == [verdict]
        assert verdict is None or verdict[0] != name
        assert case["reason"] is not None or verdict is None


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.lists(st.tuples(TEXTS, TEXTS), max_size=6))
def test_swapping_looks_at_one_pair_at_a_time(pairs: list[tuple[str, str]]) -> None:
    alone = [2 * index for index, pair in enumerate(pairs) if swapped(pair)]
    assert swapped([side for pair in pairs for side in pair]) == alone
    turned = [side for index, pair in enumerate(pairs) for side in (pair[::-1] if 2 * index in alone else pair)]
    assert swapped(turned) == []  # what was put right stays


# --- cost -------------------------------------------------------------------------------------------------------

LONG = 1 << 18
HOSTILE = {
    "one Han": "哈",
    "one sign": "[",
    "newlines": "\n",
    "blanks": " ",
    "one line": "同一行，一字不差\n",
    "lost": "\ufffd",
    "emoji": "😀",
    "adverts": "加微信",
    "brackets": "[蜡烛]",
    "mojibake": "ï¿½â€Ã©锟",
    "many Han": "".join(chr(code) for code in range(0x4E00, 0x9000)),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("form", ["article", "question", "translation"])
def test_hostile_text_takes_linear_time(name: str, form: str) -> None:
    unit = HOSTILE[name]
    times = LONG // len(unit.encode()) // 4
    quarter, whole = _cost(unit * times, form), _cost(unit * times * 4, form)
    assert whole < 8 * quarter + 0.2  # quadratic work takes sixteen times as long, and that is many seconds


def _cost(text: str, form: str) -> float:
    parts = {"article": ["题", text], "question": ["题", "", text], "translation": ["The boat has left.", text]}[form]
    made = Document(text, 0, form, parts)
    limits = Limits(min_length=10, min_han=0.1, adverts=True)
    start = time.process_time()
    judge_all([made], limits)
    for rule in RULES:
        judge(made, limits, [rule])
    return time.process_time() - start


@pytest.mark.parametrize("phrase", ["讨厌", "[鲜花]", "说来话长，", "夏天的风吹过山岗，"])
def test_a_long_text_of_one_phrase_is_found_at_once(phrase: str) -> None:
    (verdict,) = judge_all(
        [Document(f"题\n\n{phrase * 400}", 0, "article", ["题", phrase * 400])], Limits(min_length=1)
    )
    assert verdict is not None
    assert verdict[0] == "repeated_spans"


def test_long_english_repeats_spans_of_six_letters_and_is_kept_where_the_manifest_counts_longer_ones() -> None:
    chance = random.Random(7)
    words = ["".join(chance.choices("etaoinshrdlu", k=chance.randint(2, 8))) for _ in range(400)]
    prose = " ".join(chance.choices(words, k=60_000))
    again = "Buy it now, it is the best that you will ever find. " * 400
    verdicts = []
    for text in (prose, again):
        for span in (0, 20):
            verdict = judge(Document(text, 0, "article", [text]), Limits(min_length=10, latin_span=span))
            verdicts.append(verdict and verdict[0])
    assert verdicts == ["repeated_spans", None, "repeated_spans", "repeated_spans"]
    chinese = "一句话翻来覆去地说，" * 300 + "a few English words. "
    verdict = judge(Document(chinese, 0, "article", [chinese]), Limits(min_length=10, latin_span=20))
    assert verdict is not None
    assert verdict[0] == "repeated_spans"
    limits = Limits(min_length=10, latin_span=20)
    pair = [Document(text, 0, "article", [text]) for text in (prose, again)]
    assert judge_all(pair, limits) == [judge(each, limits) for each in pair]
