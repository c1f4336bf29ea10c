"""Narrow policies with value and reward models, and an optimizer in place of the Trainer."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from corpus.pipeline.tokenizer import files
from corpus.pipeline.workspace.layout import Workspace
from corpus.train.objective import Passes
from corpus.train.preferences import actor_critic, networks, ppo
from corpus.train.preferences.episodes import Judges
from corpus.train.preferences.rollouts import Limits
from tests.support.packed import make_tokenizer, pad_id, separator_id
from tests.support.rankings import CONTEXT, causal, ids_of

SETTINGS = ppo.Settings(
    kl_coef=0.02, missing_end_penalty=1.0, inner_epochs=2, minibatches=1, ptx_coef=0.0, seed=1
)  # fmt: skip


def alone(rows: int = 3) -> Passes:
    """A process without others."""
    return Passes(rank=0, world=1, rows=rows, precision="fp32", add=lambda sums: sums)


def limits(tokens: int = 12) -> Limits:
    """The separator may be written, no other special token."""
    special = [token for token, added in make_tokenizer().get_added_tokens_decoder().items() if added.special]
    banned = tuple(token for token in special if token != separator_id())
    assert banned
    return Limits(separator=separator_id(), banned=banned, tokens=tokens, context=CONTEXT)


def prompts(*texts: str) -> list[np.ndarray]:
    """The separator and a text."""
    return [np.concatenate([[separator_id()], ids_of(text)]) for text in texts]


def reward_network(family: str = "gpt2", *, seed: int = 7) -> Any:
    """A reward model with opinions."""
    made = networks.reward(causal(family, seed=seed, scale=3.0), pad=pad_id()).eval()
    torch.manual_seed(seed)
    torch.nn.init.normal_(made.score.weight, std=0.5)
    return made


def policy_and_judges(family: str = "gpt2") -> tuple[Any, Judges]:
    """A policy with the weights of its reference, to which positions matter, and which soon ends an answer."""
    model, reward = causal(family, scale=12.0), reward_network(family)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "wpe" in name:
                weight.mul_(20)
        ids = torch.tensor([prompt[:2].tolist() for prompt in prompts("茶", "雨", "猫")])
        towards = model(ids).logits[..., separator_id()].mean().sign()
        model.get_input_embeddings().weight[separator_id()] *= 3 * towards
    judges = Judges(reference=copy.deepcopy(model), reward=reward, shift=0.25, separator=separator_id(), pad=pad_id())
    return actor_critic.policy(model, copy.deepcopy(reward), banned=limits().banned, shift=0.25), judges


class Optimizing:
    """Takes optimizer steps as the Trainer would, without clipping; counts them, and keeps the first gradients."""

    def __init__(self, policy: Any, *, rate: float = 0.0, passes: Passes | None = None) -> None:
        self.step, self.passes = 0, passes or alone()
        self.policy = policy
        self.optimizer = torch.optim.Adam(policy.parameters(), lr=rate)
        self.updates = 0
        self.outputs: list[Any] = []

    def learn(self, inputs: Mapping[str, Any], *, weight: float = 1.0, is_last: bool) -> Any:
        del is_last
        output = self.policy(**inputs)
        (output.loss * weight).backward()
        self.outputs.append(output)
        return output

    def update(self) -> None:
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.updates += 1


def lay_reward_model(workspace: Workspace, run: str = "rm", **settings: Any) -> None:
    """A reward model's folder below `models/`."""
    folder = workspace.models / run
    network = reward_network()
    network.config.reward_shift = 0.25
    network.save_pretrained(folder)
    for name, content in files.of_model(workspace.tokenizer).items():
        (folder / name).write_bytes(content)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | settings))
