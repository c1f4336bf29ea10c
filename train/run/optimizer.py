"""Muon on the matrices of the blocks and AdamW on everything else, as one optimizer of torch.

In: a model, the rates and decays. Out: a `torch.optim.Optimizer` that the Trainer schedules, saves and resumes.
Invariants: every trained parameter is in one group; the state is keyed by the model's parameters, so a resumed run
takes the same steps; a fused matrix of queries, keys and values is orthogonalized as three.
Cost: five rounds of three products for each matrix and step, whatever its rows; of the memory, one moment instead of
two for each weight of these matrices.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import AdamW, Muon, Optimizer
from transformers.pytorch_utils import Conv1D

from corpus.pipeline.errors import TrainError

SCALING = "match_rms_adamw"
"""An update of Muon has the size of one of AdamW, 0.2 for each weight, so both have the same learning rate and decay
(Liu et al., 2025)."""
MOMENTUM = 0.95
"""Muon's (Jordan et al., 2024)."""


class MuonAdamW(Optimizer):
    """One optimizer of two: `torch.optim.Muon` and `torch.optim.AdamW` do the steps, this one owns groups and state.

    The group of Muon comes first, so its rate is the one that is logged.
    """

    def __init__(
        self, hidden: Sequence[tuple[nn.Parameter, int]], rest: Sequence[dict[str, Any]], *, rate: float,
        adam_rate: float, weight_decay: float, betas: tuple[float, float], eps: float,
    ) -> None:  # fmt: skip
        """`hidden` has the matrices, and into how many equal blocks of columns each is cut; `rest` AdamW's groups."""
        adam = AdamW(rest, lr=adam_rate, betas=betas, eps=eps, fused=True)
        group = {
            "params": [matrix for matrix, _ in hidden], "blocks": [blocks for _, blocks in hidden], "lr": rate,
            "weight_decay": weight_decay, "momentum": MOMENTUM,
        }  # fmt: skip
        pieces = [nn.Parameter(piece) for matrix, blocks in hidden for piece in matrix.detach().chunk(blocks, dim=1)]
        self._muon = Muon(pieces, lr=rate, weight_decay=weight_decay, momentum=MOMENTUM, adjust_lr_fn=SCALING)
        self._adam = adam
        super().__init__([group, *adam.param_groups], {})
        self._share()

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take groups and state of a checkpoint, for `load_state_dict`."""
        super().__setstate__(state)
        self._share()

    def _share(self) -> None:
        """Let AdamW work on the groups and the state of this optimizer."""
        self._adam.param_groups = self.param_groups[1:]
        self._adam.state = self.state

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]  # torch overloads it
        """One step of both."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._step_muon()
        self._adam.step()
        return loss

    def _step_muon(self) -> None:
        """Lay matrices, gradients and momenta under Muon's pieces, as views, and let it step."""
        group, (inner,) = self.param_groups[0], self._muon.param_groups
        inner |= {name: group[name] for name in ("lr", "weight_decay", "momentum")}
        pieces = iter(inner["params"])
        for matrix, blocks in zip(group["params"], group["blocks"], strict=True):
            if matrix.grad is not None and "momentum_buffer" not in self.state[matrix]:
                self.state[matrix]["momentum_buffer"] = torch.zeros_like(matrix)
            for block in range(blocks):
                piece = next(pieces)
                piece.data = matrix.detach().chunk(blocks, dim=1)[block]
                piece.grad = None
                if matrix.grad is not None:
                    piece.grad = matrix.grad.chunk(blocks, dim=1)[block]
                    momentum = self.state[matrix]["momentum_buffer"].chunk(blocks, dim=1)[block]
                    self._muon.state[piece]["momentum_buffer"] = momentum
        self._muon.step()  # type: ignore[no-untyped-call]  # torch leaves it bare


def is_fsdp() -> bool:
    """Whether accelerate's launcher has switched on FSDP."""
    return os.environ.get("ACCELERATE_USE_FSDP", "").lower() in {"1", "true", "yes", "on"}


def check(name: str | None) -> None:
    """Refuse Muon where accelerate's launcher has switched on FSDP.

    Raises:
        TrainError: FSDP cuts the matrices.

    """
    if name == "muon" and is_fsdp():
        raise TrainError("--optimizer muon needs whole matrices, and FSDP cuts them", hint="Give --optimizer adamw.")


def make(
    model: nn.Module, decayed: set[str], *, rate: float, adam_rate: float, weight_decay: float,
    betas: tuple[float, float], eps: float = 1e-8,
) -> MuonAdamW:  # fmt: skip
    """The optimizer of a model; `decayed` names the parameters with weight decay."""
    matrices = hidden_matrices(model)
    trained = {name: each for name, each in model.named_parameters() if each.requires_grad}
    rest = [
        {"params": [each for name, each in trained.items() if name not in matrices and (name in decayed) == decays],
         "weight_decay": weight_decay if decays else 0.0}
        for decays in (True, False)
    ]  # fmt: skip
    hidden = [(trained[name], blocks) for name, blocks in matrices.items()]
    return MuonAdamW(
        hidden, [group for group in rest if group["params"]], rate=rate, adam_rate=adam_rate,
        weight_decay=weight_decay, betas=betas, eps=eps,
    )  # fmt: skip


def one_moment(model: nn.Module, name: str) -> int:
    """The number of weights for which the optimizer keeps one moment: those that Muon trains."""
    weights = dict(model.named_parameters())
    return sum(weights[each].numel() for each in hidden_matrices(model)) if name == "muon" else 0


def hidden_matrices(model: nn.Module) -> dict[str, int]:
    """Names of the matrices that Muon trains, with the blocks of each.

    They are the trained matrices outside of embeddings and the output layer.
    """
    heads = {id(layer) for layer in model.modules() if isinstance(layer, nn.Embedding)}
    output = getattr(model, "get_output_embeddings", lambda: None)()
    heads |= {id(output), *(id(getattr(model, name, None)) for name in ("score", "lm_head"))}
    outside = {
        id(weight) for layer in model.modules() if id(layer) in heads for weight in layer.parameters(recurse=False)
    }
    layers = dict(model.named_modules())
    return {
        name: _blocks(layers[name.rpartition(".")[0]], weight)
        for name, weight in model.named_parameters()
        if weight.requires_grad and weight.ndim == 2 and id(weight) not in outside
    }


def _blocks(layer: nn.Module, weight: torch.Tensor) -> int:
    """3 for GPT-2's layer of queries, keys and values side by side."""
    return 3 if isinstance(layer, Conv1D) and weight.shape[1] == 3 * weight.shape[0] else 1
