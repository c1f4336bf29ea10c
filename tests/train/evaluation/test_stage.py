"""`corpus evaluate`: what training measures on rows it measures on documents, for models and tokenizers of other kinds
too, and what it cannot measure it says.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BertLMHeadModel,
    ByT5Tokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    XLNetConfig,
    XLNetLMHeadModel,
)

from corpus.pipeline.cli import main
from corpus.pipeline.errors import BooksError, CorpusError, DeviceError, ModelError, TokenizerError, WorkspaceError
from corpus.pipeline.pack import stage as pack
from corpus.pipeline.progress import Progress
from corpus.pipeline.storage.document_shards import parts, read_part
from corpus.pipeline.storage.row_shards import open_rows
from corpus.pipeline.tokenizer import files
from corpus.pipeline.tokenizer import stage as tokenizer
from corpus.pipeline.tokenizer.special_tokens import PAD, SEPARATOR
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.ledger import read_ledger, write_ledger
from corpus.train.data.collate import Collator, Rows
from corpus.train.evaluation import stage as score
from corpus.train.evaluation.config import EvaluateConfig, Evaluation
from corpus.train.evaluation.documents import texts_of
from corpus.train.evaluation.metrics import evaluate, token_sizes
from corpus.train.evaluation.tokens import DocumentTokenizer, offset_sizes
from corpus.train.evaluation.windows import cut
from corpus.train.model.build import make
from corpus.train.presets import PRESETS
from tests.support.command import corpus
from tests.support.documents import TRAIN, VALID
from tests.support.records import baike, lines

NAME = "baike2018qa"
CONTEXT = 32
UNKNOWN = "<unk>"
LENGTHS = (2, 3, 40, 5, 9, 120, 4)
"""Clauses of the answers: documents much longer than a window, and shorter ones."""

pytestmark = pytest.mark.xdist_group("evaluate")  # the workspace is made once

torch.set_num_threads(1)


def answer(number: int) -> str:
    clauses = LENGTHS[number % len(LENGTHS)]
    return "，".join(f"第{number * 7 + step}步看{chr(0x4E00 + number * 13 + step)}再动手" for step in range(clauses))


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Documents, one of validation left out, a tokenizer, rows, and a random model in `models/ours`."""
    workspace = Workspace(tmp_path_factory.mktemp("evaluate") / "workspace")
    source = workspace.root.parent / "fetched"
    source.mkdir()
    held = [baike(900 + n, answer=answer(100 + n)) for n in range(30)]
    held[4] = baike(904, answer="正文里写着<|endoftext|>和<|pad|>，它们只是字😀。")
    (source / TRAIN).write_bytes(lines(baike(n, answer=answer(n)) for n in range(90)))
    (source / VALID).write_bytes(lines([*held, held[3]]))
    corpus("ingest", "--source", source, "--no-rule", "repeated_spans", folder=workspace.root.parent)
    tokenizer.run(tokenizer.TokenizerConfig(vocab_size=400), workspace)
    pack.run(pack.PackConfig(dataset=NAME, workers=1, seq_length=CONTEXT, unit_characters=2_000), workspace)
    _save_ours(workspace, workspace.models / "ours")
    return workspace


def _save_ours(workspace: Workspace, folder: Path) -> None:
    ids = files.load(workspace.tokenizer)
    network = make(
        dataclasses.replace(PRESETS["tiny"], layers=2, width=32, heads=2),
        vocab_size=ids.get_vocab_size(), seq_length=CONTEXT, separator=ids.token_to_id(SEPARATOR) or 0,
        pad=ids.token_to_id(PAD) or 0, dropout=0.1, seed=3,
    )  # fmt: skip
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(4)  # opinions
    network.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(workspace.tokenizer / name, folder / name)


def measure(workspace: Workspace, folder: Path | str = "ours", **settings: Any) -> Evaluation:
    model = workspace.models / folder
    return score.run(EvaluateConfig(model=model, device="cpu", precision="fp32", **settings), workspace)


def validation(workspace: Workspace) -> list[str]:
    """The documents of validation that are used: all but the repeated one, which has the last line."""
    documents: list[tuple[str, str]] = []
    for path in parts(workspace.documents(NAME)):
        for _, _, batch in read_part(path, ["text", "split"]):
            documents += zip(batch["text"].to_pylist(), batch["split"].to_pylist(), strict=True)
    return [text for text, split in documents if split == "validation"][:-1]


def spread_over(texts: list[str], count: int) -> list[str]:
    return [texts[number * len(texts) // count] for number in range(count)]


def counts(evaluation: Evaluation) -> tuple[int, int, int]:
    total = evaluation.total().score
    return total.tokens, total.characters, total.bytes


# --- the same as training measures ----------------------------------------------------------------------------------


def test_documents_give_what_packed_rows_give(ready: Workspace) -> None:
    """Training's own evaluation over all rows of validation: equal counts, equal nats to rounding."""
    rows = Rows([open_rows(ready.packed(NAME))["validation"]])
    ids = files.load(ready.tokenizer)
    on_rows = evaluate(
        AutoModelForCausalLM.from_pretrained(ready.models / "ours"), rows, range(len(rows)),
        collator=Collator(seq_length=CONTEXT, pad_id=ids.token_to_id(PAD) or 0),
        sizes=token_sizes(ready.tokenizer / "tokenizer.json"), rows_per_pass=4,
    )  # fmt: skip
    found = measure(ready)
    (result,) = found.results
    assert (result.dataset, result.documents, found.context, found.stride) == (NAME, 30, CONTEXT, CONTEXT)
    assert (result.score.tokens, result.score.characters, result.score.bytes) == (
        on_rows.tokens, on_rows.characters, on_rows.bytes,
    )  # fmt: skip
    assert result.score.nats == pytest.approx(on_rows.nats, rel=1e-6)
    assert (result.unknown, result.unseen) == (0, 0)
    ledger = read_ledger(ready.packed(NAME))
    assert ledger is not None
    cut_documents = ledger.counts["splits"]["validation"]["cut_documents"]
    assert cut_documents > 5  # windows are put to the test


@pytest.mark.parametrize("stride", [None, 5, 31])
def test_against_a_loop_over_tokens(ready: Workspace, stride: int | None) -> None:
    """Each predicted token looked up in the scores of its window alone, in double precision."""
    model = AutoModelForCausalLM.from_pretrained(ready.models / "ours").double().eval()
    ids = files.load(ready.tokenizer)
    sizes = token_sizes(ready.tokenizer / "tokenizer.json")
    nats, sums = 0.0, np.zeros(3, np.int64)
    for text in spread_over(validation(ready), 7):
        document = [*ids.encode(text, add_special_tokens=False).ids, ids.token_to_id(SEPARATOR)]
        predicted = 0
        for begin in range(0, len(document), stride or CONTEXT):
            window = document[begin : begin + CONTEXT]
            with torch.no_grad():
                logits = model(torch.tensor([window])).logits[0].log_softmax(-1)
            for place in range(max(begin + 1, predicted), begin + len(window)):
                nats -= logits[place - begin - 1, document[place]].item()
                sums += (1, *sizes[document[place]])
            predicted = begin + len(window)
            if predicted == len(document):
                break
    found = measure(ready, stride=stride, documents=7)
    assert list(counts(found)) == sums.tolist()
    assert found.total().windows > 50  # long documents are among them
    assert found.total().score.nats == pytest.approx(nats, rel=1e-5)


def test_batches_and_the_buffer_change_nothing(ready: Workspace) -> None:
    alone = measure(ready, batch_size=1, stride=10)
    assert alone.total().windows > 60
    for size in (3, 16, 1000, None):
        together = measure(ready, batch_size=size, stride=10)
        assert counts(together) == counts(alone)
        assert together.total().score.nats == pytest.approx(alone.total().score.nats, rel=1e-6)
    config = EvaluateConfig(model=ready.models / "ours", device="cpu", precision="fp32", stride=10)
    tight = score.run(config, ready, buffer_passes=0, encoded_texts=1)  # a buffer of one document
    assert counts(tight) == counts(alone)
    assert tight.total().score.nats == pytest.approx(alone.total().score.nats, rel=1e-6)


def test_overlap_predicts_all_but_the_first_token(ready: Workspace) -> None:
    apart, overlapped = measure(ready), measure(ready, stride=CONTEXT // 2)
    ids = files.load(ready.tokenizer)
    lengths = [len(ids.encode(text, add_special_tokens=False).ids) + 1 for text in validation(ready)]
    assert counts(overlapped)[0] == sum(length - 1 for length in lengths)
    assert counts(apart)[0] == sum(length - -(-length // CONTEXT) for length in lengths)
    assert counts(apart)[0] < counts(overlapped)[0]


@pytest.mark.parametrize("context", [2, 5, 8])
def test_windows_predict_each_token_once(context: int) -> None:
    for length in range(1, 30):
        for stride in range(1, context + 1):
            windows = list(cut(length, context, stride))
            predicted = [place for begin, end, first in windows for place in range(first, end)]
            assert predicted == sorted(set(predicted))
            assert all(begin < first < end <= begin + context for begin, end, first in windows)
            unseen = set(range(length)) - set(predicted)
            assert unseen == ({0} if stride < context else set(range(0, length, context)))


class Listener(Progress):
    def __init__(self) -> None:
        self.begun: list[tuple[str, int | None, str]] = []
        self.done = 0

    def begin(self, label: str, total: int | None, unit: str) -> None:
        self.begun.append((label, total, unit))

    def advance(self, amount: int) -> None:
        self.done += amount


def test_documents_are_an_even_spread_and_progress_counts_them(ready: Workspace) -> None:
    listener = Listener()
    config = EvaluateConfig(model=ready.models / "ours", device="cpu", documents=7)
    found = score.run(config, ready, progress=listener)
    assert (listener.begun, listener.done) == ([(NAME, 7, "documents")], 7)
    assert found.total().documents == 7
    assert [*texts_of(config, ready, listener)[0].read()] == spread_over(validation(ready), 7)
    assert measure(ready, documents=500).total().score == measure(ready).total().score


# --- other models and tokenizers ------------------------------------------------------------------------------------


def _save_llama(folder: Path, fast: PreTrainedTokenizerFast, *, rows: int | None = None, **settings: Any) -> None:
    torch.manual_seed(5)
    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config = LlamaConfig(
        vocab_size=rows or len(fast), max_position_embeddings=64, initializer_range=0.3,
        bos_token_id=fast.bos_token_id, eos_token_id=fast.eos_token_id, **size | settings,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    fast.save_pretrained(folder)


def fast_tokenizer(core: Tokenizer, **special: str) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_object=core, **{f"{name}_token": token for name, token in special.items()})


def _byte_level(texts: list[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE with a token that it puts before each text, as Llama 3's."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=350, special_tokens=["<begin>", "<end>"], initial_alphabet=alphabet, show_progress=False
    )
    core.train_from_iterator(texts, trainer)
    core.post_processor = processors.TemplateProcessing(single="<begin> $A", special_tokens=[("<begin>", 0)])
    core.add_tokens(["再动手"])  # an added token that is ordinary text
    return fast_tokenizer(core, bos="<begin>", eos="<end>")


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
        for begin in range(0, len(ids), context):
            window = ids[begin : begin + context]
            with torch.no_grad():
                logits = network(torch.tensor([window])).logits[0].log_softmax(-1)
            for place in range(1, len(window)):
                nats -= logits[place - 1, window[place]].item()
                predicted.append(text[slice(*spans[begin + place])])
            tokens += len(window) - 1
    return nats, tokens, predicted


def test_a_llama_with_a_beginning_token(ready: Workspace) -> None:
    texts = validation(ready)
    fast = _byte_level(texts)
    _save_llama(ready.models / "llama", fast)
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
    _save_llama(ready.models / "unigram", fast)
    found = measure(ready, "unigram")
    assert len(found.notes) == 1
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
    _save_llama(ready.models / "bert", fast)
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
    _save_llama(ready.models / "smile", fast_tokenizer(core, eos="<end>"))
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
    _save_llama(ready.models / "marks", fast)
    (document,) = DocumentTokenizer(ready.models / "marks", rows=len(fast)).encode(["🂡 再 动"])
    names = fast.convert_ids_to_tokens(document.ids_t.tolist())
    assert names[0] == "▁"
    assert document.sizes[:, 0].tolist()[:3] == [0, 1, 1]
    assert document.sizes.sum(axis=0).tolist() == [5, len("🂡 再 动".encode())]


# --- what it cannot measure -----------------------------------------------------------------------------------------


def copied(ready: Workspace, name: str) -> Path:
    folder = ready.models / name
    shutil.copytree(ready.models / "ours", folder)
    return folder


def damaged(ready: Workspace, name: str, change: Callable[[Path], None]) -> str:
    """The message and hint of the failure that a changed copy of the model ends in."""
    change(copied(ready, name))
    with pytest.raises(CorpusError) as caught:
        measure(ready, name)
    assert isinstance(caught.value, ModelError | TokenizerError)
    return f"{caught.value.message} | {caught.value.hint}"


def _drop(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def _write(name: str, data: bytes) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / name).write_bytes(data)

    return write


def test_what_is_no_model(ready: Workspace) -> None:
    assert "config.json is missing" in damaged(ready, "no-config", _drop("config.json"))
    assert "cannot be read" in damaged(ready, "bad-config", _write("config.json", b"{"))
    assert "there is no *.safetensors" in damaged(ready, "no-weights", _drop("model.safetensors"))
    assert "the model cannot be read" in damaged(ready, "bad-weights", _write("model.safetensors", b"\0" * 64))
    assert "the model cannot be read" in damaged(
        ready, "odd", _write("config.json", b'{"model_type": "nothing-known"}')
    )
    code = {"auto_map": {"AutoModelForCausalLM": "own.Model"}, "model_type": "own"}
    assert "the model cannot be read" in damaged(ready, "own-code", _write("config.json", json.dumps(code).encode()))
    with pytest.raises(ModelError, match="nowhere is not a folder"):
        measure(ready, "nowhere")


def test_what_is_no_tokenizer(ready: Workspace) -> None:
    def bare(folder: Path) -> None:
        (folder / "tokenizer.json").unlink()
        (folder / "tokenizer_config.json").unlink()

    assert "no-words holds no tokenizer" in damaged(ready, "no-words", bare)
    assert "cannot be read" in damaged(ready, "bad-words", _write("tokenizer.json", b"{}"))

    def slow(folder: Path) -> None:
        bare(folder)
        ByT5Tokenizer().save_pretrained(folder)

    assert "does not give the positions of its tokens" in damaged(ready, "slow", slow)

    def endless(folder: Path) -> None:
        bare(folder)
        core = Tokenizer(models.BPE({"a": 0, "b": 1}, []))
        PreTrainedTokenizerFast(tokenizer_object=core).save_pretrained(folder)

    assert "no other end of a document" in damaged(ready, "endless", endless)


def test_a_tokenizer_of_another_model(ready: Workspace) -> None:
    fast = _byte_level(validation(ready))
    _save_llama(ready.models / "larger", fast, rows=200)
    with pytest.raises(TokenizerError, match="the tokenizer has 351 tokens, the model 200: it is another model's"):
        measure(ready, "larger")


def test_a_token_without_a_row(ready: Workspace) -> None:
    """An unknown token added behind the model's vocabulary is missed only where a document needs it."""
    vocabulary = {"第": 0, "个": 1, "<end>": 2}
    core = Tokenizer(models.WordLevel({**vocabulary, UNKNOWN: 3}, UNKNOWN))
    core.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    fast = fast_tokenizer(core, eos="<end>", unk=UNKNOWN)
    _save_llama(ready.models / "short", fast, rows=3)
    (known,) = DocumentTokenizer(ready.models / "short", rows=3).encode(["第个"])
    assert known.ids_t.tolist() == [0, 1, 2]
    with pytest.raises(TokenizerError, match=r"no row for the token '<unk>' \(3 of 3\), which a document"):
        measure(ready, "short")


def test_numbers_that_are_none(ready: Workspace) -> None:
    def spoil(folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        weights["transformer.ln_f.weight"][0] = math.nan
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    assert "the loss on baike2018qa is nan" in damaged(ready, "nan", spoil)


def test_a_model_that_sees_ahead_predicts_nothing(ready: Workspace) -> None:
    folder = copied(ready, "masked")
    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    torch.manual_seed(1)
    (folder / "model.safetensors").unlink()
    BertLMHeadModel(BertConfig(vocab_size=400, **size)).save_pretrained(folder)
    with pytest.raises(ModelError, match="sees those after it"):
        measure(ready, "masked")
    BertLMHeadModel(BertConfig(vocab_size=400, is_decoder=True, **size)).save_pretrained(folder)
    assert measure(ready, "masked", context=32).total().documents == 30
    XLNetLMHeadModel(XLNetConfig(vocab_size=400, d_model=32, n_layer=1, n_head=2, d_inner=64)).save_pretrained(folder)
    with pytest.raises(ModelError, match="this XLNetLMHeadModel cannot be run on plain text"):
        measure(ready, "masked")


def test_windows_that_cannot_be(ready: Workspace) -> None:
    with pytest.raises(ModelError, match="takes 32 tokens at once, --context asks for 64"):
        measure(ready, context=64)
    with pytest.raises(ModelError, match="--stride 40 is longer than a window of 32"):
        measure(ready, stride=40)
    with pytest.raises(DeviceError, match="no such device"):
        score.run(EvaluateConfig(model=ready.models / "ours", device="xpu"), ready)


def test_a_device_that_is_too_small(ready: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch's own refusal of what no machine has; other failures pass as they are."""
    monkeypatch.setattr(score, "batch_nats", lambda *_: torch.empty(1 << 50))
    for rows, advice in ((None, "--batch-size 1"), (1, "a smaller --context")):
        with pytest.raises(DeviceError, match="not enough memory") as caught:
            measure(ready, batch_size=rows)
        assert advice in caught.value.hint
    monkeypatch.setattr(score, "batch_nats", lambda *_: torch.ones(2) + torch.ones(3))
    with pytest.raises(RuntimeError, match="size of tensor"):
        measure(ready)


def test_splits_and_datasets_that_are_not_there(ready: Workspace, tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError, match="wiki2019zh has no documents"):
        measure(ready, datasets=("wiki2019zh",))
    with pytest.raises(WorkspaceError, match="baike2018qa has no test documents") as caught:
        measure(ready, datasets=(NAME,), split="test")
    assert caught.value.hint == "Give --split train or validation."
    with pytest.raises(WorkspaceError, match=r"no dataset in .* has test documents"):
        measure(ready, split="test")
    with pytest.raises(WorkspaceError, match="no documents to look through"):
        score.run(EvaluateConfig(model=ready.models / "ours"), Workspace(tmp_path))


def test_the_books_of_the_documents(ready: Workspace, tmp_path: Path) -> None:
    other = Workspace(tmp_path / "workspace")
    shutil.copytree(ready.documents(NAME), other.documents(NAME))
    ledger = read_ledger(other.documents(NAME))
    assert ledger is not None
    assert score.run(EvaluateConfig(model=ready.models / "ours", device="cpu"), other).total().documents == 31
    more = {**ledger.counts, "splits": {**ledger.counts["splits"], "validation": 35}}
    write_ledger(other.documents(NAME), dataclasses.replace(ledger, counts=more), {})
    with pytest.raises(BooksError, match="35 documents by the ledger, 31 were read"):
        score.run(EvaluateConfig(model=ready.models / "ours", device="cpu"), other)


@pytest.mark.parametrize(
    ("settings", "flag"),
    [
        ({"split": "dev"}, "--split must be one of validation, test, train, is dev"),
        ({"documents": -1}, "--documents must be at least 0, is -1"),
        ({"context": 1}, "--context must be at least 2, is 1"),
        ({"stride": 0}, "--stride must be at least 1, is 0"),
        ({"context": 8, "stride": 9}, "--stride must be at most --context, 8, is 9"),
        ({"batch_size": 0}, "--batch-size must be at least 1, is 0"),
        ({"precision": "fp8"}, "--precision must be one of"),
        ({"device": "tpu"}, "--device must be one of"),
    ],
)
def test_what_cannot_be_asked(settings: dict[str, Any], flag: str) -> None:
    with pytest.raises(ValueError, match=flag):
        EvaluateConfig(model=Path("model"), **settings)


# --- the command ----------------------------------------------------------------------------------------------------


def test_the_command(ready: Workspace) -> None:
    done = corpus("evaluate", "--model", "ours", folder=ready.root.parent, COLUMNS="80")
    found = measure(ready).total()
    shown = f"baike2018qa +30 +[0-9.]+ k +{found.score.loss:.3f} .* {found.score.bits_per_character:.3f} "
    assert re.search(shown, done.stdout)
    assert max(map(len, done.stdout.splitlines()[:6])) <= 80
    assert "windows of 32 tokens" in done.stdout
    assert "Loading weights" not in done.stderr


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """The command within this process: torch is loaded already. Exit code, standard output, standard error."""
    with pytest.raises(SystemExit) as leave:
        main.main(["evaluate", *map(str, arguments)])
    out, err = capsys.readouterr()
    return int(str(leave.value.code)), out, err


def test_json_and_failures_of_the_command(ready: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    where = ("--workspace", ready.root, "--device", "cpu")
    code, out, _ = run(capsys, *where, "--model", ready.models / "ours", "--json", "--documents", 5, "--stride", 16)
    values = json.loads(out)
    assert (code, values["stride"], values["datasets"][0]["documents"]) == (0, 16, 5)
    assert values["all"]["nats"] == pytest.approx(measure(ready, documents=5, stride=16).total().score.nats, rel=1e-6)
    code, _, err = run(capsys, *where, "--model", "ours", "--stride", 0)
    assert (code, "--stride must be at least 1, is 0" in err) == (2, True)
    code, _, err = run(capsys, *where, "--model", "nothing")
    assert (code, "nothing is not a folder" in err) == (1, True)
