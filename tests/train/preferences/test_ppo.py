"""PPO's episodes and losses: what is drawn is what is learnt from, nothing reads padding, and a bandit is solved."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from corpus.train.data.collate import as_batch
from corpus.train.preferences import actor_critic, networks, ppo, rollouts
from corpus.train.preferences import episodes as play
from corpus.train.preferences.episodes import Judges
from corpus.train.preferences.rollouts import Limits
from tests.support.packed import pad_id, separator_id
from tests.support.policies import SETTINGS, Optimizing, alone, limits, policy_and_judges, prompts

ASKED = prompts("茶", "为什么天是蓝的？因为空气", "", "猫睡在暖气片上", "雨")
SEEDS = [11, 12, 13, 14, 15]


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_what_is_drawn_has_the_log_probabilities_of_the_training_pass(family: str) -> None:
    """Prompts of different length, one batch; an answer that ends early leaves it."""
    policy, judges = policy_and_judges(family)
    answers = rollouts.write(policy, ASKED, SEEDS, limits())
    assert len({len(answer.ids) for answer in answers}) > 1
    found = play.lay(ASKED, [answer.ids for answer in answers], separator=separator_id(), pad=pad_id())
    play.judge(found, policy, judges, banned=limits().banned, rows=2, precision="fp32")
    drawn = np.concatenate([answer.logs for answer in answers])
    np.testing.assert_allclose(found.logs_nt[found.written_nt], drawn, atol=1e-5)
    assert drawn.std() > 0.5
    assert found.ended_n.tolist() == [answer.ids[-1] == separator_id() for answer in answers]


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_batch_is_single_and_padded_is_unpadded(family: str) -> None:
    policy, judges = policy_and_judges(family)
    together, gap = ppo.played(policy, judges, ASKED, SEEDS, limits(), alone(rows=5))
    assert gap < 1e-3
    for row, (prompt, seed) in enumerate(zip(ASKED, SEEDS, strict=True)):
        one, _ = ppo.played(policy, judges, [prompt], [seed], limits(), alone())
        size = int(one.mask_nt.sum())
        assert together.ids_nt[row, :size].tolist() == one.ids_nt[0].tolist()
        for name in ("logs_nt", "reference_nt", "values_nt", "entropy_nt"):
            np.testing.assert_allclose(getattr(together, name)[row, :size], getattr(one, name)[0], atol=1e-4)
        np.testing.assert_allclose(together.scores_n[row], one.scores_n[0], atol=1e-5)
    assert np.ptp(together.scores_n) > 0.05


def test_banned_tokens_have_no_share() -> None:
    policy, judges = policy_and_judges()
    found, _ = ppo.played(policy, judges, ASKED, SEEDS, limits(), alone())
    assert not set(found.ids_nt[found.written_nt].tolist()) & set(limits().banned)
    batch = found.tensors(slice(None), torch.device("cpu"))
    own = (batch["input_ids"], batch["attention_mask"], batch["written"], policy.banned_b)
    _, logs_mv = actor_critic.written_logs(policy, *own)
    assert logs_mv.exp().sum(dim=-1).detach().numpy() == pytest.approx(1, abs=1e-5)
    assert logs_mv[:, list(limits().banned)].max() == -torch.inf


def test_before_the_first_update_ratios_are_1_and_the_divergence_is_0_exactly() -> None:
    policy, judges = policy_and_judges()
    learner = Optimizing(policy)
    settings = dataclasses.replace(SETTINGS, inner_epochs=1)
    _, found = ppo.learn(learner, policy, judges, ASKED, limits(), settings)
    assert (found["kl"], found["kl_k3"], found["clip_fraction"]) == (0.0, 0.0, 0.0)
    episodes, _ = ppo.played(policy, judges, ASKED, SEEDS, limits(), alone())
    assert np.array_equal(episodes.logs_nt, episodes.reference_nt)
    for first in range(0, len(ASKED), 3):
        part = slice(first, first + 3)
        batch = episodes.tensors(part, torch.device("cpu"))
        own = (batch["input_ids"], batch["attention_mask"], batch["written"], policy.banned_b)
        logs_m, _ = actor_critic.written_logs(policy, *own)
        assert torch.equal(logs_m, episodes.column("logs_nt", part, torch.device("cpu")))
    assert found["policy_loss"] == pytest.approx(0, abs=1e-6)  # whitened advantages, each times 1


def test_losses_are_those_of_the_table() -> None:
    """Ratios 1.5, 0.5, 1.1 and 0.5 with advantages of either sign: the clipped ratio decides where it is worse."""
    logs, advantages = torch.tensor([1.5, 0.5, 1.1, 0.5]).log(), torch.tensor([2.0, -1.0, 3.0, 4.0])
    loss, clipped = actor_critic.policy_loss(logs, torch.zeros(4), advantages)
    assert loss.item() == pytest.approx(-2 * 1.2 + 0.8 - 3.3 - 4 * 0.5)
    assert clipped.item() == 2
    values, old, returns = torch.tensor([1.0, 1.0, 0.1]), torch.zeros(3), torch.tensor([2.0, -1.0, 0.0])
    loss = actor_critic.value_loss(values, old, returns)  # held to 0.2, 0.2 and 0.1
    assert loss.item() == pytest.approx((1.8**2 + 2.0**2 + 0.1**2) / 2)


def test_an_answer_without_an_end_is_scored_with_one_and_pays() -> None:
    _, judges = policy_and_judges()
    body = prompts("雨早")[0][1:]
    asked = prompts("茶", "茶")
    found = play.lay(asked, [body, np.append(body, separator_id())], separator=separator_id(), pad=pad_id())
    play.judge(found, judges.reference, judges, banned=(), rows=2, precision="fp32", with_values=False)
    assert found.scores_n[0] == pytest.approx(found.scores_n[1], abs=1e-6)
    got = ppo.outcome(found, SETTINGS)
    assert got["reward"].tolist() == pytest.approx([found.scores_n[0] - 1, found.scores_n[1]])
    assert got["ended"].tolist() == [0, 1]
    ids = torch.from_numpy(found.ids_nt[1:])
    with torch.no_grad():
        logit = judges.reward(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.item()
    assert found.scores_n[1] == pytest.approx(logit - 0.25, abs=1e-6)


class FixedRows:
    """Rows of pre-training data: one batch for each two episodes."""

    def batches(self, epoch: int, episodes: np.ndarray, rows: int) -> Sequence[Mapping[str, Any]]:
        del epoch, rows
        random = np.random.default_rng(len(episodes))
        found = []
        for _ in episodes[::2]:
            ids = random.integers(10, 300, (2, 9))
            targets = np.roll(ids, -1, axis=1)
            targets[0, -3:] = -100
            found.append(as_batch(ids, targets))
        return found


def test_ptx_adds_the_gradient_of_the_language_models_loss() -> None:
    policy, judges = policy_and_judges()
    settings = dataclasses.replace(SETTINGS, inner_epochs=1, ptx_coef=27.8)
    gradients = []
    for beside in (None, FixedRows()):
        policy.zero_grad()
        _, found = ppo.learn(Optimizing(policy), policy, judges, ASKED, limits(), settings, beside)
        gradients.append({name: weight.grad.clone() for name, weight in policy.named_parameters()})
    batches = FixedRows().batches(0, np.arange(len(ASKED)), 1)
    plain = judges.reference.requires_grad_(requires_grad=True)
    known = [(batch["labels"] != -100, batch["labels"], batch["input_ids"]) for batch in batches]
    logits = torch.cat([plain(ids).logits[mask] for mask, _, ids in known])
    loss = torch.nn.functional.cross_entropy(logits, torch.cat([labels[mask] for mask, labels, _ in known]))
    loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it bare
    assert found["ptx_loss"] == pytest.approx(loss.item(), rel=1e-5)
    for name, weight in plain.named_parameters():
        added = gradients[1][name] - gradients[0][name]
        torch.testing.assert_close(added, 27.8 * weight.grad, rtol=1e-3, atol=1e-4)
    critic = [name for name in gradients[0] if name.startswith("critic.")]
    assert critic
    assert all(torch.equal(gradients[0][name], gradients[1][name]) for name in critic)


def test_minibatches_share_the_episodes_and_take_their_own_steps() -> None:
    policy, judges = policy_and_judges()
    learner = Optimizing(policy, passes=alone(rows=2))
    seen: list[int] = []
    real = learner.learn
    learner.learn = lambda inputs, **how: seen.append(len(inputs["input_ids"])) or real(inputs, **how)  # type: ignore[method-assign, func-returns-value]  # counts rows
    settings = dataclasses.replace(SETTINGS, inner_epochs=3, minibatches=2)
    ppo.learn(learner, policy, judges, ASKED, limits(tokens=3), settings)
    assert learner.updates == 5  # the sixth is the Trainer's
    assert sum(seen) == 3 * len(ASKED)


BANDIT_TOKENS, BETA = 8, 0.5
PRIZE = torch.tensor([0.0, 0.0, 0.0, 1.0, 0.0, -0.5, 0.0, 9.0])
"""Reward of each answer of one token; the last token is banned."""


def test_a_bandit_reaches_its_optimum() -> None:
    """The best policy under a KL penalty is the reference times exp(reward / beta), which needs no training to know."""
    torch.manual_seed(0)
    size = {"vocab_size": BANDIT_TOKENS, "n_positions": 8, "n_embd": 16, "n_layer": 1, "n_head": 1}
    none: dict[str, Any] = {
        "tie_word_embeddings": False,
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
        "bos_token_id": 0,
        "eos_token_id": 0,
    }
    model = GPT2LMHeadModel(GPT2Config(**size, **none))
    model.lm_head.weight.data *= 10
    reference = copy.deepcopy(model).eval()
    critic = networks.reward(copy.deepcopy(model), pad=6)
    policy = actor_critic.policy(model, critic, banned=(7,), shift=0.0)

    def prize(input_ids: torch.Tensor, **_: Any) -> Any:
        return SimpleNamespace(logits=PRIZE[input_ids[:, 1]][:, None])

    judges = Judges(reference=reference, reward=prize, shift=0.0, separator=0, pad=6)
    bounds = Limits(separator=0, banned=(7,), tokens=1, context=8)
    settings = dataclasses.replace(SETTINGS, kl_coef=BETA, missing_end_penalty=0.0)
    learner = Optimizing(policy, rate=0.02, passes=alone(rows=128))
    steps = 40
    for step in range(steps):
        learner.step = step
        learner.optimizer.param_groups[0]["lr"] = 0.02 * (1 - step / steps)
        ppo.learn(learner, policy, judges, [np.array([0])] * 128, bounds, settings)
        learner.update()
    with torch.no_grad():
        before, after = (each(torch.tensor([[0]])).logits[0, -1, :7].softmax(-1) for each in (reference, policy))
    best = before * (PRIZE[:7] / BETA).exp()
    best /= best.sum()
    assert (before - best).abs().max() > 0.2
    assert (after - best).abs().max() < 0.02, (before, after, best)
