"""Models and tokenizers of other kinds: which tokens are predicted, and which text they stand for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from corpus.pipeline.workspace.layout import Workspace
from corpus.train.evaluation import stage as score
from corpus.train.evaluation.config import EvaluateConfig
from corpus.train.evaluation.tokens import DocumentTokenizer, offset_sizes
from tests.support.evaluated import (
    UNKNOWN,
    Listener,
    byte_level,
    counts,
    fast_tokenizer,
    measure,
    save_llama,
    validation,
)

pytestmark = pytest.mark.xdist_group("evaluate")  # the workspace is made once


def _unigram(texts: list[str]) -> PreTrainedTokenizerFast:
    """SentencePiece's kind: a mark for a blank, characters it has not seen unknown."""
    core = Tokenizer(models.Unigram())
    core.normalizer = normalizers.NFKC()
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    core.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=700, special_tokens=[UNKNOWN, "<end>"], unk_token=UNKNOWN, show_progress=False
    )
    core.train_from_iterator(texts, trainer)
    return fast_tokenizer(core, eos="<end>", unk=UNKNOWN)


def _word_piece(texts: list[str]) -> PreTrainedTokenizerFast:
    """A Chinese BERT's kind, as many Chinese GPTs have it: no end of a text but the one that it puts there itself."""
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *sorted(set("".join(texts)) - {"\n"})]
    names += [f"##{character}" for character in sorted(set("".join(texts))) if character.isalnum()]
    core = Tokenizer(models.WordPiece({name: number for number, name in enumerate(names)}, unk_token=names[1]))
    core.normalizer = normalizers.BertNormalizer()
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return fast_tokenizer(core, unk="[UNK]", sep="[SEP]", cls="[CLS]", pad="[PAD]")


def naive(folder: Path, texts: list[str], before: list[int], end: int, context: int) -> tuple[float, int, list[str]]:
    """Nats, tokens and the pieces of text that are predicted, window by window."""
    network = AutoModelForCausalLM.from_pretrained(folder).double().eval()
    fast = PreTrainedTokenizerFast.from_pretrained(folder)
    nats, tokens, predicted = 0.0, 0, []
    for text in texts:
        encoding = fast._tokenizer.encode(text, add_special_tokens=False)
        ids, spans = [*before, *encoding.ids, end], [*[(0, 0)] * len(before), *encoding.offsets, (0, 0)]
        longer = len(before)  # after a prefix, the first window predicts a whole context
        for start in range(0, len(ids), context):
            begin = start + longer * (start > 0)
            window = ids[begin : start + context + longer]
            with torch.no_grad():
                logits = network(torch.tensor([window[:-1] or window])).logits[0].log_softmax(-1)
            for place in range(1, len(window)):
                nats -= logits[place - 1, window[place]].item()
                predicted.append(text[slice(*spans[begin + place])])
            tokens += len(window) - 1
    return nats, tokens, predicted


def test_a_llama_with_a_beginning_token(ready: Workspace) -> None:
    texts = validation(ready)
    fast = byte_level(texts)
    save_llama(ready.models / "llama", fast)
    found = measure(ready, "llama")
    assert found.context == 64
    nats, tokens, _ = naive(ready.models / "llama", texts, [fast.bos_token_id], fast.eos_token_id, 64)
    assert counts(found)[0] == tokens
    assert found.total().score.nats == pytest.approx(nats, rel=1e-5)
    whole = measure(ready, "llama", stride=32).total().score  # the beginning token alone is not predicted
    assert (whole.characters, whole.bytes) == (sum(map(len, texts)), sum(len(text.encode()) for text in texts))


def test_a_tokenizer_that_is_not_byte_level(ready: Workspace) -> None:
    texts = validation(ready)
    fast = _unigram([text.replace("😀", "") for text in texts])
    save_llama(ready.models / "unigram", fast)
    found = measure(ready, "unigram")
    assert "nothing before a document" in found.notes[0]
    assert len(found.notes) == 2
    assert found.total().unknown == 1  # the emoji
    assert found.total().unseen == 0
    nats, tokens, predicted = naive(ready.models / "unigram", texts, [], fast.eos_token_id, 64)
    assert counts(found)[0] == tokens
    assert found.total().score.nats == pytest.approx(nats, rel=1e-5)
    assert found.total().score.characters == pytest.approx(sum(map(len, predicted)), abs=5)  # marks are no text
    wording = DocumentTokenizer(ready.models / "unigram", rows=len(fast))
    for document, text in zip(wording.encode(texts), texts, strict=True):
        assert document.sizes.sum(axis=0).tolist() == [len(text), len(text.encode())]


def test_what_bert_kinds_pass_over_is_said(ready: Workspace) -> None:
    texts = validation(ready)
    fast = _word_piece([text.replace("😀", "") for text in texts])
    save_llama(ready.models / "bert", fast)
    wording = DocumentTokenizer(ready.models / "bert", rows=len(fast))
    assert (wording.before, wording.after) == ([2], [3])
    found = measure(ready, "bert", stride=32).total()
    assert found.unseen == sum(text.count("\n") for text in texts)
    assert found.score.characters + found.unseen == sum(map(len, texts))
    assert found.unknown == 1
    assert "does not keep the whole text" in measure(ready, "bert").notes[0]


def test_documents_in_which_nothing_is_predicted(ready: Workspace) -> None:
    """A tokenizer that keeps one sign alone leaves most documents with their end only; they count all the same."""
    core = Tokenizer(models.BPE({"😀": 0, "<end>": 1}, []))
    core.normalizer = normalizers.Replace(Regex("[^😀]"), "")
    save_llama(ready.models / "smile", fast_tokenizer(core, eos="<end>"))
    config = EvaluateConfig(model=ready.models / "smile", device="cpu")
    for passes in (score.BUFFER_PASSES, 0):
        listener = Listener()
        found = score.run(config, ready, progress=listener, buffer_passes=passes).total()
        assert (listener.done, found.documents, found.windows, found.score.tokens) == (30, 30, 1, 1)
        assert found.unseen == sum(map(len, validation(ready))) - 1
        assert found.to_dict()["bits_per_character"] is None  # the end is predicted, and it has no characters


def test_offsets_count_a_character_once() -> None:
    text = "龘😀 é"
    spans = [(0, 1), (0, 1), (0, 1), (1, 2), (3, 4)]
    sizes = offset_sizes(text, np.array(spans))
    assert sizes.tolist() == [[1, 3], [0, 0], [0, 0], [1, 4], [1, 2]]
    assert offset_sizes("abc", np.array([(0, 2), (0, 0), (0, 3)]))[:, 0].tolist() == [2, 0, 1]
    assert offset_sizes("", np.zeros((0, 2), np.int64)).shape == (0, 2)


def test_a_mark_before_a_text_has_no_character_of_it(ready: Workspace) -> None:
    fast = _unigram(validation(ready))
    save_llama(ready.models / "marks", fast)
    (document,) = DocumentTokenizer(ready.models / "marks", rows=len(fast)).encode(["🂡 再 动"])
    names = fast.convert_ids_to_tokens(document.ids_t.tolist())
    assert names[0] == "▁"
    assert document.sizes[:, 0].tolist()[:3] == [0, 1, 1]
    assert document.sizes.sum(axis=0).tolist() == [5, len("🂡 再 动".encode())]
