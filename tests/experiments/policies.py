"""What a policy writes, measured: divergence from its reference, scores of reward models, length, end, variety.

In: model folders of one workspace, prompts as ids. Out: figures of each answer, and statistics over prompts.
Invariants: temperature 1 without filters; an answer depends on policy, prompt and seed; scores are of the ids that were
written; the divergence of an answer is the sum over its tokens of the exact KL of the two next-token distributions, so
its mean is an unbiased estimate with less noise than that of log-ratios.
Cost: the rollouts, and one pass of two models and of each reward model over each answer.
"""

# Shape suffixes: p prompts, d draws of a prompt, b rows of a pass, t places of a sequence, m tokens of answers.
from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch

from corpus.generate.engine.model import Model, load
from corpus.train.model.sampling import row_seed
from corpus.train.preferences.rollouts import Limits, write
from corpus.train.preferences.scoring import RewardModel

_ROWS = 16


class Written(TypedDict):
    """Answers to prompts, prompt by prompt; each list has one entry an answer."""

    kl: list[float]
    """Nats from the reference."""
    scores: dict[str, list[float]]
    """By reward model."""
    tokens: list[int]
    """Of the answer, its end included."""
    ended: list[bool]
    texts: list[str]


def measure(
    policy: Path, reference: Path, judges: Mapping[str, Path], prompts: Sequence[np.ndarray], *, seed: int,
    draws: int = 1, tokens: int = 64,
) -> Written:  # fmt: skip
    """Let a policy answer each prompt `draws` times; draw k of a prompt depends on seed, prompt and k alone."""
    model = load(policy, precision="fp32")
    other = model if policy == reference else load(reference, precision="fp32")
    limits = Limits(
        separator=model.separator, banned=tuple(model.banned.tolist()), tokens=tokens, context=model.context
    )
    asked = [prompt for prompt in prompts for _ in range(draws)]
    seeds = [row_seed(seed, number, draw) for number in range(len(prompts)) for draw in range(draws)]
    ids = [answer.ids for answer in write(model.network, asked, seeds, limits)]
    said = [each[:-1] if each[-1] == model.separator else each for each in ids]
    return {
        "kl": [0.0] * len(ids) if other is model else _divergence(model, other, asked, ids),
        "scores": {name: _scores(folder, model, asked, said) for name, folder in judges.items()},
        "tokens": [len(each) for each in ids],
        "ended": [bool(each[-1] == model.separator) for each in ids],
        "texts": [model.tokenizer.decode(each.tolist()) for each in said],
    }


def _scores(folder: Path, model: Model, prompts: Sequence[np.ndarray], said: Sequence[np.ndarray]) -> list[float]:
    """Of a prompt that is no question, prompt and text are one answer, as in rankings without a question."""
    user = model.tokenizer.convert_tokens_to_ids("<|user|>")
    cuts = [len(prompt) if len(prompt) > 1 and prompt[1] == user else 1 for prompt in prompts]
    whole = [np.concatenate([prompt, each]).tolist() for prompt, each in zip(prompts, said, strict=True)]
    questions = [ids[1:cut] for ids, cut in zip(whole, cuts, strict=True)]
    answers = [ids[cut:] for ids, cut in zip(whole, cuts, strict=True)]
    found = RewardModel(folder, device=model.network.device.type).scores_of_ids(questions, answers)
    return [math.nan if score is None else float(score) for score in found]


@torch.no_grad()
def _divergence(model: Model, other: Model, prompts: Sequence[np.ndarray], ids: Sequence[np.ndarray]) -> list[float]:
    """KL(policy || reference) of each answer, over the tokens that may be written."""
    device = model.network.device
    allowed = np.setdiff1d(np.arange(model.network.config.vocab_size), model.banned.cpu().numpy())
    kept = torch.from_numpy(allowed).to(device)
    found: list[float] = []
    for first in range(0, len(ids), _ROWS):
        rows = list(zip(prompts[first : first + _ROWS], ids[first : first + _ROWS], strict=True))
        width = max(len(prompt) + len(answer) for prompt, answer in rows)
        read_bt = torch.zeros(len(rows), width, dtype=torch.long)
        mask_bt, written_bt = torch.zeros_like(read_bt), torch.zeros(read_bt.shape, dtype=torch.bool)
        for row, (prompt, answer) in enumerate(rows):
            begin, end = len(prompt), len(prompt) + len(answer)
            read_bt[row, :begin], read_bt[row, begin:end] = torch.from_numpy(prompt), torch.from_numpy(answer)
            mask_bt[row, :end], written_bt[row, begin - 1 : end - 1] = 1, True
        read_bt, mask_bt, written_bt = (each.to(device) for each in (read_bt, mask_bt, written_bt))
        own, others = (_logs(each.network, read_bt, mask_bt, written_bt, kept) for each in (model, other))
        nats_m = (own.exp() * (own - others)).sum(-1).double()
        sums = torch.zeros(len(rows), dtype=torch.float64).index_add(0, written_bt.nonzero()[:, 0].cpu(), nats_m.cpu())
        found += sums.tolist()
    return found


def _logs(network: Any, read_bt: Any, mask_bt: Any, written_bt: Any, kept: Any) -> Any:
    logits = network(input_ids=read_bt, attention_mask=mask_bt, use_cache=False).logits
    return logits[written_bt].float()[:, kept].log_softmax(-1)


# --- statistics -------------------------------------------------------------------------------------------------------


def best_of(proxy_pd: np.ndarray, gold_pd: np.ndarray, many: int) -> np.ndarray:
    """[prompts] expected `gold` of the answer with the highest `proxy` among `many` that are drawn from all draws
    without replacement: the unbiased estimate from all of them (Nakano et al., 2021, appendix I).

    >>> best_of(np.array([[1.0, 2.0, 3.0]]), np.array([[5.0, 7.0, 9.0]]), 2).tolist()
    [8.333333333333332]
    """
    draws = proxy_pd.shape[1]
    ranked = np.take_along_axis(gold_pd, np.argsort(proxy_pd, axis=1, kind="stable"), axis=1)
    weights = np.array([math.comb(rank, many - 1) for rank in range(draws)]) / math.comb(draws, many)
    expected: np.ndarray = ranked @ weights
    return expected


def wins(gold_p: np.ndarray, other_pd: np.ndarray) -> np.ndarray:
    """[prompts] share of the other draws that an answer beats; a tie counts half."""
    won: np.ndarray = ((gold_p[:, None] > other_pd) + 0.5 * (gold_p[:, None] == other_pd)).mean(axis=1)
    return won


def matched_wins(
    gold_p: np.ndarray, tokens_p: np.ndarray, other_pd: np.ndarray, other_tokens_pd: np.ndarray
) -> tuple[np.ndarray, float]:
    """[prompts] whether an answer beats the other draw that is nearest in length, and the mean distance in tokens.

    >>> matched_wins(np.array([1.0]), np.array([5]), np.array([[0.0, 2.0]]), np.array([[9, 6]]))
    (array([0.]), 1.0)
    """
    distance = np.abs(other_tokens_pd - tokens_p[:, None])
    nearest = distance.argmin(axis=1)[:, None]
    won = wins(gold_p, np.take_along_axis(other_pd, nearest, axis=1))
    return won, float(np.take_along_axis(distance, nearest, axis=1).mean())


def bootstrap(values_p: np.ndarray, *, seed: int = 1, times: int = 2000) -> tuple[float, float]:
    """95 % interval of the mean over prompts (Efron, 1979)."""
    drawn = np.random.default_rng(seed).integers(0, len(values_p), (times, len(values_p)))
    low, high = np.percentile(values_p[drawn].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)


def distinct_2(texts: Sequence[str]) -> float:
    """Different pairs of neighbouring characters among all of them (Li et al., 2016); only equally many texts compare.

    >>> distinct_2(["好好好", "好茶"])
    0.6666666666666666
    """
    pairs = [text[at : at + 2] for text in texts for at in range(len(text) - 1)]
    return len(set(pairs)) / max(1, len(pairs))


def picture(lines: Mapping[str, Sequence[Sequence[tuple[float, float]]]]) -> bytes:
    """Gold reward against the square root of the KL divergence: a colour a method, a line a seed; a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(7.0, 4.5), dpi=120, layout="constrained")
    axes = drawing.subplots()
    for number, (method, seeds) in enumerate(lines.items()):
        for at, points in enumerate(seeds):
            label = method if at == 0 else None
            axes.plot(
                *zip(*points, strict=True), color=f"C{number}", marker="o", markersize=3, linewidth=1, label=label
            )
    axes.set_xlabel("root of the KL divergence from the SFT model (nats an answer)")
    axes.set_ylabel("gold reward")
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8, frameon=False)
    buffer = io.BytesIO()
    FigureCanvasAgg(drawing).print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()
