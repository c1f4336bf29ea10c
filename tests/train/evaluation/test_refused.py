"""What `corpus evaluate` cannot measure, it says."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    BertConfig,
    BertLMHeadModel,
    ByT5Tokenizer,
    PreTrainedTokenizerFast,
    XLNetConfig,
    XLNetLMHeadModel,
)

from corpus.pipeline.errors import (
    BooksError,
    CorpusError,
    DamageError,
    DeviceError,
    ModelError,
    TokenizerError,
    WorkspaceError,
)
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.ledger import read_ledger, write_ledger
from corpus.train.evaluation import stage as score
from corpus.train.evaluation.config import EvaluateConfig
from corpus.train.evaluation.tokens import DocumentTokenizer
from tests.support import damage
from tests.support.evaluated import NAME, UNKNOWN, byte_level, fast_tokenizer, measure, save_llama, validation

pytestmark = pytest.mark.xdist_group("evaluate")  # the workspace is made once


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


@pytest.mark.parametrize("harm", damage.KINDS, ids=lambda harm: harm.__name__)
def test_damaged_documents_are_refused(ready: Workspace, harm: Callable[[Path], None]) -> None:
    path = ready.documents(NAME) / "part-00001.parquet"
    data = path.read_bytes()
    harm(path)
    try:
        with pytest.raises(DamageError, match=r"part-00001\.parquet has other bytes than its ledger says"):
            measure(ready)
    finally:
        path.write_bytes(data)


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
    assert "needs Python code of its own" in damaged(
        ready, "own-code", _write("config.json", json.dumps(code).encode())
    )
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
    fast = byte_level(validation(ready))
    save_llama(ready.models / "larger", fast, rows=200)
    with pytest.raises(TokenizerError, match="the tokenizer has 351 tokens, the model 200: it is another model's"):
        measure(ready, "larger")


def test_a_token_without_a_row(ready: Workspace) -> None:
    """An unknown token added behind the model's vocabulary is missed only where a document needs it."""
    vocabulary = {"第": 0, "个": 1, "<end>": 2}
    core = Tokenizer(models.WordLevel({**vocabulary, UNKNOWN: 3}, UNKNOWN))
    core.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    fast = fast_tokenizer(core, eos="<end>", unk=UNKNOWN)
    save_llama(ready.models / "short", fast, rows=3)
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
