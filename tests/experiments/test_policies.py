"""The figures of `make preferences`: what is measured of policies, against plain computations."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from corpus.generate.engine.model import load
from corpus.train.model.sampling import row_seed
from corpus.train.preferences.rollouts import Limits, write
from corpus.train.preferences.scoring import RewardModel
from tests.experiments import policies, preferences
from tests.support.sampling import SENTENCES, save_model, save_reward


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A policy, its reference and a reward model of one tokenizer."""
    place = tmp_path_factory.mktemp("policies")
    save_model(place / "policy", context=64)
    save_model(place / "reference", context=64, n_layer=1)
    save_reward(place / "rm")
    return {path.name: path for path in place.iterdir()}


def test_divergence_and_scores_are_those_of_each_answer_alone(folders: dict[str, Path]) -> None:
    """Prompts of different length stand in one pass; the divergence is over the tokens that may be written."""
    policy, reference = (load(folders[name], device="cpu") for name in ("policy", "reference"))
    prompts = [
        np.array([policy.separator, *policy.encode(text[:size])])
        for text, size in zip(SENTENCES, (2, 6, 3), strict=False)
    ]
    found = policies.measure(
        folders["policy"], folders["reference"], {"rm": folders["rm"]}, prompts, seed=3, draws=2, tokens=5
    )
    assert len(found["texts"]) == 6
    kept = [token for token in range(policy.network.config.vocab_size) if token not in set(policy.banned.tolist())]
    limits = Limits(separator=policy.separator, banned=tuple(policy.banned.tolist()), tokens=5, context=64)
    for number in range(6):
        prompt = prompts[number // 2]
        (answer,) = write(policy.network, [prompt], [row_seed(3, *divmod(number, 2))], limits)
        ended = answer.ids[-1] == policy.separator
        assert (found["tokens"][number], found["ended"][number]) == (len(answer.ids), ended)
        whole = torch.from_numpy(np.concatenate([prompt, answer.ids]))[None]
        with torch.no_grad():
            own, other = (
                each.network(whole).logits[0, len(prompt) - 1 : -1][:, kept].log_softmax(-1)
                for each in (policy, reference)
            )
        assert found["kl"][number] == pytest.approx(float((own.exp() * (own - other)).sum()), abs=1e-4)
        said = answer.ids[:-1] if ended else answer.ids
        (score,) = RewardModel(folders["rm"]).scores_of_ids([[]], [[*prompt[1:], *said]])
        assert found["scores"]["rm"][number] == pytest.approx(score, abs=1e-5)
    assert min(found["kl"]) > 0.1
    again = policies.measure(folders["policy"], folders["policy"], {}, prompts, seed=3, tokens=5)
    assert again["kl"] == [0.0] * 3
    assert again["texts"] == found["texts"][::2]


def test_the_estimate_of_best_of_n_is_the_mean_over_all_choices() -> None:
    random = np.random.default_rng(1)
    proxy, gold = random.normal(size=(2, 3, 6))
    expected = [
        np.mean([gold[row, max(some, key=lambda at: proxy[row, at])] for some in itertools.combinations(range(6), 4)])
        for row in range(3)
    ]
    assert policies.best_of(proxy, gold, 4) == pytest.approx(expected)
    assert policies.best_of(proxy, gold, 1) == pytest.approx(gold.mean(axis=1))


def test_an_interval_holds_the_mean() -> None:
    values = np.array([0.0, 1.0] * 50)
    low, high = policies.bootstrap(values)
    assert low < 0.5 < high
    assert high - low == pytest.approx(2 * 1.96 * 0.05, rel=0.1)


def test_every_part_has_its_place_on_a_page(tmp_path: Path) -> None:
    for name in preferences.PARTS:
        page = tmp_path / name
        page.write_bytes(preferences.page_of(name).read_bytes())
        preferences.write(page, name, "| measured |")
        preferences.write(page, name, "| measured again |")
        assert "| measured again |\n<!-- " in page.read_text(encoding="utf-8")
        assert "| measured |" not in page.read_text(encoding="utf-8")
