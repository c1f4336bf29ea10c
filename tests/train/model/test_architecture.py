"""A config.json of someone else becomes a model of this workspace, or is refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from corpus.pipeline.errors import ModelError
from corpus.train.model.architecture import make, read
from corpus.train.model.memory import step_memory, token_flops
from tests.support.families import LEAKING, save_config
from tests.support.kept import kept_bytes

GIVEN: dict[str, Any] = {"vocab_size": 400, "seq_length": 48, "separator": 0, "pad": 1, "dropout": None, "seed": 1}


def test_it_takes_our_vocabulary_tokens_context_and_precision(tmp_path: Path) -> None:
    save_config(tmp_path, "qwen3", attention_dropout=0.1, use_cache=False, quantization_config={"quant_method": "fp8"})
    model = make(tmp_path, **GIVEN)
    config = model.config
    assert (config.vocab_size, config.max_position_embeddings, config.use_cache) == (400, 48, True)
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (0, 0, 1)
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    assert model.get_input_embeddings().num_embeddings == 400
    assert (config.attention_dropout, make(tmp_path, **GIVEN | {"dropout": 0.0}).config.attention_dropout) == (0.1, 0.0)
    model.save_pretrained(tmp_path / "saved")
    assert "quantization_config" not in json.loads((tmp_path / "saved" / "config.json").read_text())


def test_the_seed_decides_the_weights(tmp_path: Path) -> None:
    file = save_config(tmp_path, "gpt_neox")
    one, same, other = (make(file, **GIVEN | {"seed": seed}).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["gpt_neox.embed_in.weight"], other["gpt_neox.embed_in.weight"])


def write(**values: object) -> Callable[[Path], object]:
    return lambda path: path.write_text(json.dumps(values))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.unlink(), "holds no config.json"),
        (lambda path: path.write_text("{"), "cannot be read"),
        (lambda path: path.write_text("[]"), "it holds no object"),
        (write(hidden_size=32), "model_type is None, which transformers does not know"),
        (write(model_type="ours"), "model_type is ours, which transformers does not know"),
        (write(model_type="ours", auto_map={"AutoModelForCausalLM": "m.M"}), "needs Python code of its own"),
        (write(model_type="llama", hidden_size="wide"), "cannot be read"),
        (write(model_type="llama", num_hidden_layers=10**6), "says 1,000,000 layers"),
        (write(model_type="llama", hidden_size=10**7), "this machine has"),
        (write(model_type="gpt2", n_embd=32, n_head=5), "no causal model can be built"),
        (write(model_type="t5"), "no causal model can be built"),
        (write(model_type="qwen2_vl"), "describes several networks"),
    ],
)
def test_what_is_no_decoder_is_refused(spoil: Callable[[Path], object], message: str, tmp_path: Path) -> None:
    spoil(save_config(tmp_path, "llama"))
    with pytest.raises(ModelError, match=message) as failure:
        make(tmp_path, **GIVEN)
    assert str(tmp_path) in failure.value.message
    assert failure.value.hint
    assert "\n" not in failure.value.message


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is not a file"):
        read(tmp_path / "nothing.json")


def test_flops_count_the_head_once_and_the_experts_in_use(tmp_path: Path) -> None:
    tied, untied = (make(save_config(tmp_path, "llama", tie_word_embeddings=tie), **GIVEN) for tie in (True, False))
    assert token_flops(tied, 48) == token_flops(untied, 48) == 6 * tied.num_parameters() + 12 * 2 * 32 * 48
    two, four = (
        make(save_config(tmp_path, "mixtral", num_local_experts=4, num_experts_per_tok=used), **GIVEN)
        for used in (2, 4)
    )
    assert two.num_parameters() == four.num_parameters()
    assert token_flops(four, 48) - token_flops(two, 48) == 6 * 2 * 2 * (3 * 32 * 48)


@pytest.mark.parametrize("family", LEAKING)
def test_every_family_can_be_forecast(family: str, tmp_path: Path) -> None:
    with torch.device("meta"):
        model = make(save_config(tmp_path, family), **GIVEN)
    assert token_flops(model, 48) >= 6 * 400 * 32
    assert min(step_memory(model, seq_length=48, precision="bf16", checkpointing=True)) > 0


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("family", ["llama", "qwen3", "gpt_neox", "gemma"])
def test_memory_counts_what_a_block_keeps(family: str, precision: str, tmp_path: Path) -> None:
    """The bytes that autograd keeps for two more layers, against the estimate."""
    kept, formula = [], []
    for layers in (1, 3):
        file = save_config(
            tmp_path, family, num_hidden_layers=layers, hidden_size=64, intermediate_size=160, head_dim=16
        )
        model = make(file, **GIVEN)
        kept.append(kept_bytes(model, torch.arange(48)[None], torch.arange(48)[None] % 20, precision))
        formula.append(step_memory(model, seq_length=48, precision=precision, checkpointing=False)[1])
    assert kept[1] - kept[0] == pytest.approx(formula[1] - formula[0], rel=0.2)
