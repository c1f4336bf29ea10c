"""Muon beside AdamW: which parameters, which steps, and a run that resumes."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import AdamW, Muon
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from corpus.pipeline.errors import TrainError, WorkspaceError
from corpus.pipeline.workspace.layout import Workspace
from corpus.train.config import TrainConfig
from corpus.train.model.memory import checkpoint_bytes, weight_bytes
from corpus.train.presets import fixed_memory
from corpus.train.run import optimizer
from corpus.train.run.stage import run
from tests.support.packed import lay_all
from tests.support.runs import SETTINGS, history

MUON: dict[str, Any] = {"optimizer": "muon", "schedule": "wsd", "decay_share": 0.5, "precision": "bf16", "dropout": 0.1}
RATES: dict[str, Any] = {"rate": 0.02, "adam_rate": 3e-3, "weight_decay": 0.1, "betas": (0.9, 0.95)}


def gpt2() -> GPT2LMHeadModel:
    torch.manual_seed(1)
    return GPT2LMHeadModel(GPT2Config(vocab_size=11, n_positions=8, n_embd=8, n_layer=1, n_head=2))


def make(model: nn.Module) -> optimizer.MuonAdamW:
    decayed = {name for name, each in model.named_parameters() if each.ndim > 1}
    return optimizer.make(model, decayed, **RATES)


def set_gradients(model: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for each in model.parameters():
        each.grad = torch.randn(each.shape, generator=generator)


def test_muon_has_the_matrices_of_the_blocks_alone() -> None:
    block = "transformer.h.0."
    assert optimizer.hidden_matrices(gpt2()) == {
        f"{block}attn.c_attn.weight": 3, f"{block}attn.c_proj.weight": 1, f"{block}mlp.c_fc.weight": 1,
        f"{block}mlp.c_proj.weight": 1,
    }  # fmt: skip
    llama = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=11, hidden_size=8, intermediate_size=12, num_hidden_layers=1, num_attention_heads=2,
            num_key_value_heads=1, tie_word_embeddings=False,
        )
    )  # fmt: skip
    llama.model.layers[0].mlp.up_proj.weight.requires_grad_(requires_grad=False)
    names = [name.removeprefix("model.layers.0.") for name in optimizer.hidden_matrices(llama)]
    attention = [f"self_attn.{each}_proj.weight" for each in "qkvo"]
    assert names == [*attention, "mlp.gate_proj.weight", "mlp.down_proj.weight"]


def test_steps_are_those_of_torch_with_queries_keys_and_values_apart() -> None:
    model, other = gpt2(), gpt2()
    ours = make(model)
    matrices = optimizer.hidden_matrices(other)
    parameters = dict(other.named_parameters())
    pieces = {
        name: [nn.Parameter(piece.clone()) for piece in parameters[name].detach().chunk(blocks, dim=1)]
        for name, blocks in matrices.items()
    }
    rest = [each for name, each in parameters.items() if name not in matrices]
    muon = Muon(
        [piece for each in pieces.values() for piece in each], lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"
    )
    adam = AdamW(
        [{"params": [each for each in rest if each.ndim > 1], "weight_decay": 0.1},
         {"params": [each for each in rest if each.ndim < 2], "weight_decay": 0.0}],
        lr=3e-3, betas=(0.9, 0.95),
    )  # fmt: skip
    for step in range(3):
        set_gradients(model, step)
        set_gradients(other, step)
        for name, each in pieces.items():
            for piece, part in zip(each, parameters[name].grad.chunk(len(each), dim=1), strict=True):
                piece.grad = part.clone()
        ours.step()
        muon.step()  # type: ignore[no-untyped-call]  # torch leaves it bare
        adam.step()
    for name, weight in model.named_parameters():
        theirs = torch.cat([*pieces[name]], dim=1) if name in pieces else parameters[name]
        torch.testing.assert_close(weight, theirs, rtol=1e-5, atol=1e-6)


def test_the_formula_counts_the_moments_that_are_kept() -> None:
    model = gpt2()
    both = make(model)
    set_gradients(model, 1)
    both.step()
    kept = sum(each.nbytes for state in both.state.values() for each in state.values() if each.ndim)
    weights, one = model.num_parameters(), optimizer.one_moment(model, "muon")
    assert 0 < one < weights
    assert fixed_memory(weights, "fp32", one_moment=one) == 2 * weight_bytes(weights) + kept  # weights, gradients
    assert checkpoint_bytes(weights, one_moment=one) == weight_bytes(weights) + kept
    assert optimizer.one_moment(model, "adamw") == 0


def test_a_saved_state_goes_on_as_if_nothing_had_been() -> None:
    whole, before, after = gpt2(), gpt2(), gpt2()
    kept = make(whole)
    for step in range(4):
        set_gradients(whole, step)
        kept.step()
    first = make(before)
    for step in range(2):
        set_gradients(before, step)
        first.step()
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    after.load_state_dict(before.state_dict())
    second = make(after)
    second.load_state_dict(torch.load(file, weights_only=True))
    for step in (2, 3):
        set_gradients(after, step)
        second.step()
    assert all(torch.equal(one, other) for one, other in zip(whole.parameters(), after.parameters(), strict=True))
    second.param_groups[0]["lr"] = second.param_groups[1]["lr"] = 0.0  # as a schedule sets them
    unchanged = [each.clone() for each in after.parameters()]
    second.step()
    moved = [not torch.equal(one, other) for one, other in zip(unchanged, after.parameters(), strict=True)]
    assert [name for (name, _), each in zip(after.named_parameters(), moved, strict=True) if each] == [
        name for name, each in after.named_parameters() if each.ndim == 1
    ]


@pytest.mark.usefixtures("narrow")
def test_a_resumed_run_has_the_curve_of_an_undisturbed_one(workspace: Workspace, tmp_path: Path) -> None:
    lay_all(workspace)
    config = TrainConfig(**SETTINGS | MUON)
    report = run(config, workspace)
    other = Workspace(shutil.copytree(workspace.root, tmp_path / "other"))
    folder = other.models / report.folder.name
    for path in (folder / "ledger.json", folder / "checkpoint-10"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    again = run(config, other)
    assert again.details["resumed_from"] == 8
    for name in ("model.safetensors", "metrics.jsonl", "ledger.json"):
        assert (folder / name).read_bytes() == (report.folder / name).read_bytes(), name
    assert [line["learning_rate"] for line in history(folder) if "loss" in line][:3] == [0.01] * 3
    chosen = {"optimizer": "muon", "adam_learning_rate": 0.01, "schedule": "wsd", "decay_share": 0.5}
    assert report.ledger.config.items() >= chosen.items()
    assert json.loads((folder / "run.json").read_bytes())["config"].items() >= chosen.items()
    assert "| optimizer | muon |" in " ".join((folder / "README.md").read_text().split())


def test_fsdp_is_refused_at_once(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `accelerate launch --use_fsdp` says it to the processes that it starts."""
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(TrainError, match="--optimizer muon needs whole matrices, and FSDP cuts them"):
        run(TrainConfig(optimizer="muon"), workspace)
    with pytest.raises(WorkspaceError, match="holds no packed rows"):
        run(TrainConfig(), workspace)
