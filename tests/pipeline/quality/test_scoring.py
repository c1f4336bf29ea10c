"""The score of a text: that of its n-grams alone, exact, and the rule by which documents stay."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from corpus.pipeline.quality import training
from corpus.pipeline.quality.scoring import (
    ALPHA,
    BUCKETS,
    ORDERS,
    UNIT,
    Weights,
    draws_of,
    keys_of,
    scores_of,
    stay_probability,
    stays,
)
from corpus.pipeline.text.codepoints import codes_of
from corpus.pipeline.text.ngrams import ngram_hashes
from tests.support.records import examples

MODEL = Weights(np.random.default_rng(1).integers(-40_000, 40_000, BUCKETS).astype(np.int32), -321)


def score_by_definition(text: str) -> float:
    """The logistic function of the mean weight, gram by gram."""
    grams = [text[at : at + order] for order in ORDERS for at in range(len(text) - order + 1)]
    total = sum(int(MODEL.weights[ngram_hashes(codes_of(gram), len(gram))[0] >> np.uint64(46)]) for gram in grams)
    return round(1 / (1 + math.exp(-(MODEL.bias + total / max(1, len(grams))) / UNIT)), 4)


@settings(max_examples=examples(2_000, 20), deadline=None)
@given(st.lists(st.text(max_size=12), max_size=6))
@example(["", "一", "两个", "三个字", "𠀀字", "", "一二三四五六七" * 20_000, "末"])
def test_a_score_is_that_of_the_n_grams_of_its_text(texts: list[str]) -> None:
    found = scores_of(texts, MODEL)
    assert len(found) == len(texts)
    short = [place for place, text in enumerate(texts) if len(text) < 100]
    assert found[short].tolist() == [score_by_definition(texts[place]) for place in short]
    assert found.tolist() == scores_of(texts[::-1], MODEL)[::-1].tolist()
    assert found.tolist() == [score for text in texts for score in scores_of([text], MODEL).tolist()]


def test_extreme_weights_neither_overflow_nor_leave_the_unit_interval() -> None:
    most = np.full(BUCKETS, 2**31 - 1, np.int32)
    assert scores_of(["好" * 300_000], Weights(most, 0)).tolist() == [1]
    assert scores_of(["好" * 300_000], Weights(-most, 0)).tolist() == [0]


def test_random_numbers_of_a_document_are_the_same_everywhere() -> None:
    keys = keys_of("wiki2019zh", ["1", "二"])
    assert keys.tolist() == [
        [int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")]
        for digest in map(bytes.fromhex, ("6b2fb7674c005fffea8cc32a300182fc", "026e2235fd010f541e13065896baf0eb"))
    ]
    assert draws_of(keys).tolist() == pytest.approx([0.9975433527503951, 0.3283540003950606])
    assert len(np.unique(np.concatenate([keys_of(name, ["1", "2"]) for name in ("demo", "wiki2019zh")]))) == 8
    assert keys_of("demo", []).shape == (0, 2)


@pytest.mark.parametrize("score", [0.0, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("alpha", [ALPHA, 1.5])
def test_as_many_stay_as_by_the_rule_of_gpt_3(score: float, alpha: float) -> None:
    draws = draws_of(keys_of("demo", map(str, range(20_000))))
    share = stays(np.full(len(draws), score), draws, alpha).mean()
    by_rule = (np.random.default_rng(0).pareto(alpha, 200_000) > 1 - score).mean()
    deviation = math.sqrt(by_rule * (1 - by_rule) / len(draws))
    assert share == pytest.approx(by_rule, abs=5 * deviation + 1e-12)
    assert stay_probability(np.array([score]), alpha)[0] == pytest.approx(by_rule, abs=5 * deviation + 1e-12)


@settings(max_examples=examples(1_000, 20), deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1), st.lists(st.integers(0, 5), min_size=1))
def test_auc_is_that_of_scikit_learn(good: list[int], bad: list[int]) -> None:
    labels = [True] * len(good) + [False] * len(bad)
    assert training.auc(np.array(good), np.array(bad)) == pytest.approx(roc_auc_score(labels, [*good, *bad]))


def test_training_reads_one_excerpt_of_a_text() -> None:
    text = "".join(map(chr, range(0x4E00, 0x4E00 + 5_000)))
    found = {training.count(text, key).counts.sum() for key in (0, 7, 2**63)}
    assert found == {2 * training.EXCERPT - 3}
    assert training.count("短文", 9).counts.tolist() == [1]
    assert training.count("", 9).counts.tolist() == []
    one, other = (set(training.count(text, key).buckets.tolist()) for key in (0, 3_000))
    assert len(one & other) < len(one) / 2


def test_rare_good_texts_weigh_as_much_as_the_others() -> None:
    counted = [training.count(text, 0) for text in ["清泉石上流"] * 3 + ["打折包邮哦"] * 90]
    model = training.fit(counted, np.arange(93) < 3)
    good, bad, neither = scores_of(["清泉石上流", "打折包邮哦", "与此无关"], model)
    assert good > 0.95
    assert bad < 0.05
    assert 0.2 < neither < 0.8
