"""Reward model and policy: neither padding nor neighbours change a number; the losses by literal tables and by TRL."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from corpus.pipeline.tokenizer import special_tokens
from corpus.train.preferences import networks
from corpus.train.preferences.batches import RankingItem
from corpus.train.preferences.predict import of_items
from tests.support.packed import pad_id
from tests.support.rankings import causal, collator, item

ITEMS = [
    item("为什么天是蓝的？", ["因为空气把蓝光散射得最多。", "茶", "他把书合上"]),
    item("", ["猫睡在暖气片上，尾巴垂下来轻轻摇。", "雨"]),
    item("面要煮几分钟？", ["三分钟", "水开之后再加一碗凉水。"]),
]


def reward(family: str = "gpt2", *, seed: int = 5) -> Any:
    """A reward model with opinions."""
    made = networks.reward(causal(family), pad=pad_id()).eval()
    torch.manual_seed(seed)
    torch.nn.init.normal_(made.score.weight, std=0.5)
    return made


def network(kind: str, family: str = "gpt2") -> Any:
    return reward(family) if kind == "reward" else networks.policy(causal(family), beta=0.1)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("kind", ["reward", "dpo"])
def test_batch_is_single_and_padded_is_unpadded(kind: str, family: str) -> None:
    made = network(kind, family)
    together = of_items(made, ITEMS, collator(), "fp32")
    alone = []
    for each in ITEMS:
        for ids in each.answers:
            one = RankingItem(each.question, [ids], np.zeros((1, 2), np.int64), np.zeros(1))
            alone.append(of_items(made, [one], collator(), "fp32"))
    np.testing.assert_allclose(together, np.concatenate(alone), rtol=1e-5, atol=1e-5)
    assert together.std() > 0.05


@pytest.mark.parametrize("kind", ["reward", "dpo"])
def test_what_stands_in_the_padding_is_not_read(kind: str) -> None:
    made, batch = network(kind), collator()(ITEMS)
    with torch.no_grad():
        before = made(**batch)
        batch["input_ids"][batch["attention_mask"] == 0] = 17
        after = made(**batch)
    torch.testing.assert_close(before.logits, after.logits)
    torch.testing.assert_close(before.loss, after.loss)


def test_an_answer_is_scored_with_its_end_and_its_question() -> None:
    made = reward()
    whole, other = item("茶？", ["雨", "雨。"]), item("水？", ["雨", "雨。"])
    open_end = RankingItem(whole.question, [ids[:-1] for ids in whole.answers], whole.pairs, whole.reference)
    scores = [of_items(made, [each], collator(), "fp32") for each in (whole, other, open_end)]
    assert np.abs(scores[0] - scores[1]).min() > 1e-4  # rounding is a hundredth of that
    assert np.abs(scores[0] - scores[2]).min() > 1e-4


def test_a_questions_loss_is_the_mean_over_its_pairs() -> None:
    """Two questions, of three pairs and of one, by numbers written out."""
    scores = torch.tensor([2.0, 1.0, 0.0, -1.0, 1.0])
    better, worse, owners = torch.tensor([0, 0, 1, 3]), torch.tensor([1, 2, 2, 4]), torch.tensor([0, 0, 0, 1])
    one, two, minus_two = 0.31326169, 0.12692801, 2.12692801  # log(1 + exp(-x)) of 1, 2 and -2
    first = (one + two + one) / 3
    found = networks.preference_loss(scores, better, worse, owners, torch.tensor([1, 1]))
    assert float(found) == pytest.approx((first + minus_two) / 2, rel=1e-6)
    parts = networks.preference_loss(scores, better, worse, owners, torch.tensor([1, 1]), 4)
    assert float(parts) == pytest.approx((first + minus_two) / 4, rel=1e-6)
    left_out = networks.preference_loss(scores, better, worse, owners, torch.tensor([1, -100]))
    assert float(left_out) == pytest.approx(first, rel=1e-6)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_both_losses_begin_at_log_two(family: str) -> None:
    made = networks.reward(causal(family), pad=pad_id())
    assert made.train()(**collator()(ITEMS)).loss.item() == pytest.approx(math.log(2), abs=1e-7)
    policy = networks.policy(causal(family), beta=0.1)
    logs = np.split(of_items(policy, ITEMS, collator(), "fp32"), [3, 5])
    own = [RankingItem(each.question, each.answers, each.pairs, log) for each, log in zip(ITEMS, logs, strict=True)]
    assert policy.train()(**collator()(own)).loss.item() == pytest.approx(math.log(2), abs=1e-5)


def test_log_probabilities_are_those_of_the_causal_model() -> None:
    policy, plain = networks.policy(causal(), beta=0.1), causal()
    found = iter(of_items(policy, ITEMS, collator(), "fp32").tolist())
    for each in ITEMS:
        for ids in each.answers:
            whole = torch.from_numpy(np.concatenate([[0], each.question, ids]))[None]
            with torch.no_grad():
                logs = plain(input_ids=whole[:, :-1]).logits[0].log_softmax(-1)
            answer = logs[len(each.question) :].gather(1, whole[0, 1 + len(each.question) :, None])
            assert next(found) == pytest.approx(float(answer.sum()), rel=1e-5)


@pytest.mark.parametrize("kind", ["reward", "dpo"])
def test_a_pass_without_questions_has_no_loss(kind: str) -> None:
    made = network(kind)
    loss = made.train()(**collator()([]), num_items_in_batch=4).loss
    loss.backward()
    assert loss.item() == 0
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in made.parameters())


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_transformers_reads_the_same(tmp_path: Path, family: str) -> None:
    made = reward(family)
    made.save_pretrained(tmp_path / "reward")
    opened = AutoModelForSequenceClassification.from_pretrained(tmp_path / "reward").eval()
    batch = collator()(ITEMS)
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        theirs = opened(**inputs).logits
        torch.testing.assert_close(theirs, made(**inputs).logits)
    assert theirs.shape == (7, 1)
    assert opened.config.pad_token_id == pad_id() != opened.config.eos_token_id
    policy = networks.policy(causal(family), beta=0.1)
    policy.save_pretrained(tmp_path / "dpo")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "dpo").eval()
    assert type(plain) is type(causal(family))
    with torch.no_grad():
        torch.testing.assert_close(plain(**inputs).logits, policy(**inputs).logits)


# --- against TRL ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trl() -> Any:
    """The library, without its telemetry: two seconds to import its trainers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(os.environ, "HF_HUB_DISABLE_TELEMETRY", "1")
        found = pytest.importorskip("trl", reason="trl is in the extra dev")
        yield found


def trainer_of(trl: Any, kind: str, models: dict[str, Any], folder: Path, **settings: Any) -> Any:
    """A real trainer of TRL, made with a line of text that it tokenizes and nobody uses."""
    from datasets import Dataset
    from transformers import PreTrainedTokenizerFast

    from tests.support.packed import make_tokenizer

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=make_tokenizer(), eos_token=special_tokens.SEPARATOR, pad_token=special_tokens.PAD
    )
    config = getattr(trl, f"{kind}Config")(
        output_dir=str(folder), report_to="none", bf16=False, gradient_checkpointing=False, use_cpu=True, **settings
    )
    line = Dataset.from_list([{"prompt": "茶？", "chosen": "雨", "rejected": "山"}])
    return getattr(trl, f"{kind}Trainer")(**models, args=config, train_dataset=line, processing_class=tokenizer)


PAIRS = [ITEMS[1], ITEMS[2]]


def test_the_reward_loss_is_that_of_trl(trl: Any, tmp_path: Path) -> None:
    from trl.trainer.reward_trainer import DataCollatorForPreference

    made = reward()
    made.save_pretrained(tmp_path)
    theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    trainer = trainer_of(trl, "Reward", {"model": theirs}, tmp_path)
    rows = [
        {f"{name}_ids": [0, *each.question.tolist(), *ids.tolist()] for name, ids in
         zip(("chosen", "rejected"), each.answers, strict=True)}
        for each in PAIRS
    ]  # fmt: skip
    inputs = DataCollatorForPreference(pad_token_id=pad_id())(rows)
    with torch.no_grad():
        expected = float(trainer.compute_loss(trainer.model.eval(), dict(inputs)))
        found = float(made(**collator()(PAIRS)).loss)
    assert found == pytest.approx(expected, abs=1e-5)
    assert abs(found - math.log(2)) > 1e-2


def test_the_dpo_loss_is_that_of_trl(trl: Any, tmp_path: Path) -> None:
    from trl.trainer.dpo_trainer import DataCollatorForPreference

    reference, policy = causal(seed=3), networks.policy(causal(seed=4), beta=0.1)
    policy.save_pretrained(tmp_path)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path)
    trainer = trainer_of(trl, "DPO", {"model": theirs, "ref_model": reference}, tmp_path, beta=0.1)
    rows = [
        {"prompt_ids": [0, *each.question.tolist()], "chosen_ids": each.answers[0].tolist(),
         "rejected_ids": each.answers[1].tolist()}
        for each in PAIRS
    ]  # fmt: skip
    inputs = DataCollatorForPreference(pad_token_id=pad_id())(rows)
    logs = np.split(of_items(networks.policy(causal(seed=3), beta=0.1), PAIRS, collator(), "fp32"), [2])
    own = [RankingItem(each.question, each.answers, each.pairs, log) for each, log in zip(PAIRS, logs, strict=True)]
    with torch.no_grad():
        expected = float(trainer._compute_loss(trainer.model.eval(), dict(inputs), return_outputs=False))
        found = float(policy(**collator()(own)).loss)
    assert found == pytest.approx(expected, abs=1e-5)
    assert abs(found - math.log(2)) > 1e-2
