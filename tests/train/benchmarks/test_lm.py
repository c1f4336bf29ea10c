"""A model as lm-evaluation-harness sees it: where a token ends, what begins a document, and plain passes as a check."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from corpus.pipeline.tokenizer.special_tokens import SEPARATOR
from corpus.train.benchmarks.lm import CorpusLM
from corpus.train.benchmarks.plain import log_likelihoods
from corpus.train.evaluation.tokens import DocumentTokenizer
from corpus.train.model.load import load_any
from tests.support.evaluated import byte_level, save_llama

PAIRS = [
    ("", "河边的柳树长出了嫩芽。"),
    ("昨天夜里下了一场小雨，", "今天早晨的空气很清新。"),
    ("昨天夜里下了一场小雨，", "站台"),
    ("奶奶把晒干的豆子装进罐子里：", "好"),
    ("奶奶把晒干的豆子装进罐子里：", "坏"),
    ("What time ", "does the library open?"),
    ("这里写着<|endoftext|>，", "它只是字<|pad|>。"),
]


def close(expected: Any) -> Any:
    """Within 1e-5, or a rounding of single precision where a sum of log-likelihoods has more digits than that."""
    return pytest.approx(expected, abs=1e-5, rel=2e-7)


def opened(folder: Path, *, batch_size: int = 4, context: int = 128) -> CorpusLM:
    network = load_any(folder, precision="fp32")
    tokenizer = DocumentTokenizer(folder, rows=network.get_input_embeddings().num_embeddings)
    return CorpusLM(network, tokenizer, context=context, batch_size=batch_size)


def request(pair: tuple[str, str]) -> Any:
    return Instance(request_type="loglikelihood", doc={}, arguments=pair, idx=0, metadata=("t", 0, 1))


def scored(lm: CorpusLM, pairs: list[tuple[str, str]]) -> list[float]:
    return [likelihood for likelihood, _ in lm.loglikelihood(list(map(request, pairs)))]


@torch.no_grad()
def by_hand(lm: CorpusLM, read: list[int], answer: list[int]) -> float:
    """One text in a pass of its own."""
    ids = torch.tensor([*read, *answer])
    logs = lm.model(ids[None]).logits[0].double().log_softmax(-1)
    return float(sum(logs[at - 1, ids[at]] for at in range(len(read), len(ids))))


def spanning(lm: CorpusLM) -> tuple[str, str]:
    """A text that is one token, cut within it: a context and an answer that a token would span."""
    for token in sorted(lm.tokenizer.get_vocab().values(), reverse=True):
        text = lm.tokenizer.decode([token])
        if len(text) > 1 and "�" not in text and lm.tok_encode(text) == [token] and not text.startswith("<|"):
            return text[:-1], text[-1:]
    raise AssertionError("the tokenizer has no token of two characters")


def test_log_likelihoods_are_those_of_plain_passes(model: Path) -> None:
    lm = opened(model)
    encoded = [lm.pairs.pair(*pair) for pair in PAIRS]
    expected = [by_hand(lm, *pair) for pair in encoded]
    assert scored(lm, PAIRS) == close(expected)
    assert log_likelihoods(lm.model, encoded, context=128, rows=3).tolist() == close(expected)


def test_batches_change_nothing(model: Path) -> None:
    alone, together = opened(model, batch_size=1), opened(model, batch_size=len(PAIRS))
    assert scored(together, PAIRS) == close(scored(alone, PAIRS))


def test_no_token_spans_context_and_answer(model: Path) -> None:
    lm = opened(model)
    context, answer = spanning(lm)
    assert len(lm.tok_encode(context + answer)) == 1
    read, scored_ids = lm.pairs.pair(context, answer)
    assert (read, scored_ids) == (lm.tok_encode(context), lm.tok_encode(answer))
    assert lm.pairs.counts.seams == 1
    lm.pairs.pair("河边，", "的柳树")
    assert lm.pairs.counts.seams == 1


def test_the_harness_alone_dies_where_a_token_swallows_the_answer(model: Path) -> None:
    lm = opened(model)
    pair = spanning(lm)
    theirs = HFLM(pretrained=lm.model, tokenizer=lm.tokenizer, max_length=128)
    with pytest.raises(AssertionError):  # the reason why CorpusLM encodes pairs its own way
        theirs.loglikelihood([request(pair)], disable_tqdm=True)
    assert scored(lm, [pair])[0] < 0


@pytest.mark.parametrize(("context", "answer"), PAIRS[1:])
def test_context_and_answer_are_encoded_as_one_text_where_that_splits(model: Path, context: str, answer: str) -> None:
    lm = opened(model)
    read, scored_ids = lm.pairs.pair(context, answer)
    assert lm.tokenizer.decode([*read, *scored_ids]) == context + answer
    if not lm.pairs.counts.seams:
        assert [*read, *scored_ids] == lm.tok_encode(context + answer)


def test_blank_before_an_english_answer_belongs_to_its_first_token(model: Path) -> None:
    lm = opened(model)
    read, scored_ids = lm.pairs.pair("What time ", "does the library open?")
    assert lm.tokenizer.decode(read) == "What time"
    assert lm.tokenizer.decode(scored_ids) == " does the library open?"


def test_an_empty_context_is_the_separator(model: Path) -> None:
    lm = opened(model)
    separator = lm.tokenizer.get_vocab()[SEPARATOR]
    assert lm.pairs.pair("", "河边")[0] == [separator]
    assert lm.pairs.pair("河边，", "的")[0] == lm.tok_encode("河边，")


def test_a_document_begins_with_what_the_tokenizer_puts_before_it(tmp_path: Path) -> None:
    fast = byte_level(["河边的柳树长出了嫩芽。"] * 3)
    save_llama(tmp_path, fast)
    lm = opened(tmp_path, context=64)
    assert lm.pairs.pair("", "河")[0] == [fast.bos_token_id]
    assert lm.pairs.pair("河，", "边")[0] == [fast.bos_token_id, *lm.tok_encode("河，")]


def test_special_strings_in_a_text_are_text(model: Path) -> None:
    lm = opened(model)
    special = set(lm.tokenizer.all_special_ids)
    read, scored_ids = lm.pairs.pair("写着<|endoftext|>，", "是<|pad|>字")
    assert special.isdisjoint([*read, *scored_ids])


def test_long_contexts_lose_their_beginning_and_are_counted(model: Path) -> None:
    lm = opened(model, context=24)
    long, answer = "孩子们在草地上放风筝，" * 6, "很清新。"
    read, scored_ids = lm.pairs.pair(long, answer)
    kept = [*read, *scored_ids][-25:]
    expected = by_hand(lm, kept[: -len(scored_ids)], scored_ids)
    assert scored(lm, [(long, answer), ("短，", "好")])[0] == close(expected)
    counts = lm.pairs.take()
    assert (counts.cut_contexts, counts.cut_answers, counts.scored) == (2, 0, 2)  # the first was encoded above, too
    plain = log_likelihoods(lm.model, [(read, scored_ids)], context=24, rows=1)
    assert plain[0] == close(expected)


def test_an_answer_longer_than_the_context_loses_its_end(model: Path) -> None:
    lm = opened(model, context=24)
    answer = "站台上的人还在挥手。" * 6
    likelihood = scored(lm, [("好，", answer)])[0]
    read = lm.tok_encode("好，")
    whole = [*read, *lm.tok_encode(answer)]
    assert likelihood == close(by_hand(lm, read[-1:], whole[len(read) : len(read) + 24]))
    assert lm.pairs.take().cut_answers == 1


def test_equal_requests_are_scored_once(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lm = opened(model)
    rows = []
    whole = lm.model.forward

    def counted(ids: torch.Tensor, **values: Any) -> Any:
        rows.append(len(ids))
        return whole(ids, **values)

    monkeypatch.setattr(lm.model, "forward", counted)
    first, second, third = scored(lm, [PAIRS[1], PAIRS[2], PAIRS[1]])
    assert first == third != second
    assert sum(rows) == 2
    counts = lm.pairs.take()
    assert (counts.requests, counts.scored) == (3, 2)
    assert lm.pairs.take().requests == 0


def test_plain_scoring_restores_the_mode_and_draws_nothing(model: Path) -> None:
    lm = opened(model)
    lm.model.train()
    before = torch.random.get_rng_state()
    log_likelihoods(lm.model, [lm.pairs.pair(*PAIRS[1])], context=128, rows=1)
    assert lm.model.training
    assert torch.equal(before, torch.random.get_rng_state())
