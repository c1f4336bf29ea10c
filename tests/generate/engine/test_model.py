"""Folders that hold no model, half a model, a dangerous one or another one's parts: each is named, with what to do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel, Lfm2Config, Lfm2ForCausalLM

from corpus.generate.config import SampleConfig
from corpus.generate.engine.model import load, memory_errors
from corpus.pipeline.errors import CorpusError, DeviceError, ModelError, TokenizerError
from corpus.pipeline.tokenizer.special_tokens import SEPARATOR
from corpus.train.model.device import pick_kind
from tests.support.sampling import save_model, texts


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with nothing wrong."""
    folder = tmp_path_factory.mktemp("whole")
    save_model(folder)
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """A copy to be spoilt."""
    return Path(shutil.copytree(whole, tmp_path / "model"))


def edit_json(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def only_pickle(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def pickle_beside_other_tensors(folder: Path) -> None:
    only_pickle(folder)
    save_file({"other": torch.zeros(1)}, folder / "other.safetensors", metadata={"format": "pt"})


def drop_a_weight(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["transformer.h.1.mlp.c_fc.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def reshape_a_weight(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["transformer.h.1.mlp.c_fc.weight"] = torch.zeros(3, 3)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def smaller_vocabulary(folder: Path) -> None:
    GPT2LMHeadModel(GPT2Config(vocab_size=50, n_positions=8, n_embd=8, n_layer=1, n_head=1)).save_pretrained(folder)


def another_tokenizer(folder: Path) -> None:
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["decoder"] = {"type": "WordPiece", "prefix": "##", "cleanup": False}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))


def layers_without_attention(folder: Path) -> None:
    size = json.loads((folder / "config.json").read_text())["vocab_size"]
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    Lfm2ForCausalLM(
        Lfm2Config(vocab_size=size, num_key_value_heads=2, layer_types=["conv", "full_attention"], **small)
    ).save_pretrained(folder)


def code_of_its_own(folder: Path) -> None:
    (folder / "modeling.py").write_text("raise SystemExit('ran code from the folder')\n")
    edit_json(folder / "config.json", model_type="ours", auto_map={"AutoModelForCausalLM": "modeling.Model"})


@pytest.mark.parametrize(
    ("spoil", "message", "error"),
    [
        (shutil.rmtree, "is not a folder", ModelError),
        (lambda folder: (folder / "config.json").unlink(), "config.json is missing", ModelError),
        (lambda folder: (folder / "config.json").write_text("{"), "cannot be read", ModelError),
        (lambda folder: (folder / "config.json").write_text("[]"), "cannot be read", ModelError),
        (lambda folder: edit_json(folder / "config.json", n_head=5), "cannot be read", ModelError),
        (lambda folder: edit_json(folder / "config.json", model_type="t5"), "cannot be read", ModelError),
        (lambda folder: edit_json(folder / "config.json", n_positions=1), "missing or have another shape", ModelError),
        (lambda folder: (folder / "tokenizer.json").unlink(), "tokenizer.json is missing", TokenizerError),
        (lambda folder: cut(folder / "tokenizer.json"), "tokenizer is missing or", TokenizerError),
        (lambda folder: (folder / "tokenizer.json").write_text("{}"), "tokenizer is missing or", TokenizerError),
        (lambda folder: cut(folder / "tokenizer_config.json"), "tokenizer is missing or", TokenizerError),
        (lambda folder: (folder / "model.safetensors").unlink(), "holds no weights", ModelError),
        (lambda folder: cut(folder / "model.safetensors"), "model cannot be read", ModelError),
        (lambda folder: (folder / "model.safetensors").write_bytes(b""), "model cannot be read", ModelError),
        (only_pickle, "pickle", ModelError),
        (pickle_beside_other_tensors, "model cannot be read", ModelError),
        (drop_a_weight, "1 weights are missing .* transformer.h.1.mlp.c_fc.weight", ModelError),
        (reshape_a_weight, "transformer.h.1.mlp.c_fc.weight", ModelError),
        (smaller_vocabulary, "another model's", TokenizerError),
        (another_tokenizer, "not byte-level", TokenizerError),
        (layers_without_attention, "Lfm2ForCausalLM is not a decoder with", ModelError),
        (code_of_its_own, "needs Python code of its own", ModelError),
        (lambda folder: edit_json(folder / "config.json", n_layer=100_000), "says 100,000 layers, and", ModelError),
        (
            lambda folder: edit_json(folder / "config.json", n_positions=10**9),
            "32,0.* parameters, 128.* GB",
            ModelError,
        ),
        (lambda folder: edit_json(folder / "config.json", n_embd=10**7), "this machine has", ModelError),
    ],
)
def test_a_folder_that_is_no_model_is_named(
    spoil: Callable[[Path], object], message: str, error: type[CorpusError], folder: Path
) -> None:
    spoil(folder)
    with pytest.raises(error, match=message) as failure:
        load(folder)
    assert str(folder) in failure.value.message
    assert failure.value.hint
    assert "\n" not in failure.value.message


def test_a_run_that_holds_only_checkpoints_names_the_newest(whole: Path, tmp_path: Path) -> None:
    for step in (90, 100):
        shutil.copytree(whole, tmp_path / f"checkpoint-{step}")
    with pytest.raises(ModelError) as failure:
        load(tmp_path)
    assert failure.value.hint.endswith(f"--model {tmp_path / 'checkpoint-100'}")


def test_a_name_is_never_taken_for_a_model_of_a_hub() -> None:
    with pytest.raises(ModelError, match="is not a folder"):
        load(Path("gpt2"))


def test_loading_says_nothing(whole: Path, capfd: pytest.CaptureFixture[str]) -> None:
    load(whole)
    assert capfd.readouterr() == ("", "")


def test_a_model_without_our_separator_ends_at_its_own(folder: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_text((folder / name).read_text().replace(SEPARATOR, "</s>"))
    assert load(folder).separator == 0
    edit_json(folder / "tokenizer_config.json", eos_token=None)
    with pytest.raises(TokenizerError, match="no other end of a document"):
        load(folder)


def test_precision(whole: Path) -> None:
    assert load(whole, device="cpu").network.dtype == torch.float32
    model = load(whole, device="cpu", precision="bf16")
    assert model.network.dtype == torch.bfloat16
    assert texts(model, SampleConfig(prompts=("奶奶",), max_new_tokens=5, seed=1))[0, 0][1].tokens == 5


def test_a_wrong_choice_names_its_flag(whole: Path) -> None:
    with pytest.raises(ValueError, match="--device must be one of auto, cpu"):
        load(whole, device="gpu")
    with pytest.raises(ValueError, match="--precision must be one of auto, fp32, bf16"):
        load(whole, precision="int8")


def test_a_device_that_is_not_there_is_named(whole: Path) -> None:
    absent = next(kind for kind in ("cuda", "mps", "xpu") if kind != pick_kind("auto"))
    with pytest.raises(DeviceError, match="no such device") as failure:
        load(whole, device=absent)
    assert "--device" in failure.value.hint


def test_a_full_device_is_named() -> None:
    with pytest.raises(DeviceError, match="too little memory"), memory_errors():
        raise torch.OutOfMemoryError
