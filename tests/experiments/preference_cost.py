"""What `python -m tests.experiments.preferences` has still to do, before it begins.

In: an `Experiment`. Out: a table of runs and measurements that are not there yet, and the time of all, roughly: by the
speed of a matrix product of this machine, of which training reaches a quarter.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from corpus.pipeline.humanize import markdown_table
from corpus.train.presets import PRESETS
from tests.experiments.preference_runs import BATCH, METHODS, PROMPT_TOKENS, PTX, REFERENCE_SEED, Experiment

_LEDGER = "ledger.json"
_RANKINGS, _ANSWERS, _ANSWER, _QUESTIONS, _PAIR = 925, 4, 60, 620, 600
"""Training rankings of a half, answers of each, tokens of one; pairs of dpo_zh, tokens of both answers."""
_FORWARD = 1 / 3
"""Of a training pass. A rollout counts as a whole one: it reads one token at a time."""
_NETWORKS = 4
"""Policy, reference, reward and value model."""
_INNER_EPOCHS = 2
_SHARE = 1 / 4
_SIDE = 1024


def cost(experiment: Experiment, parts: Sequence[str]) -> str:
    """The table and the time."""
    every = list(_work(experiment, set(parts)))
    rows = [(name, tokens) for name, tokens, there in every if not there.exists()]
    size = _parameters(experiment)
    flops = 6 * size * sum(tokens for _, tokens in rows)
    hours = flops / (_SHARE * _speed(experiment.given["threads"])) / 3600
    table = markdown_table(("to do", "tokens of training passes"), [(name, f"{tokens:,.0f}") for name, tokens in rows])
    return (
        f"{table}\n\n{len(every) - len(rows)} of {len(every)} are done; the others take about {hours:.1f} hours of "
        f"{experiment.given['threads']} threads, evaluation of the alignment tax not counted: {flops:.2g} FLOP for "
        f"{size / 1e6:.1f} M parameters"
    )


def _work(experiment: Experiment, parts: set[str]) -> Iterator[tuple[str, float, Path]]:
    """Names, tokens, and what is there when it is done."""
    given, runs, row = experiment.given, experiment.runs, experiment.length
    models, seeds = experiment.place / "models", len(experiment.every_seed)
    answer, episodes = given["tokens"] + PROMPT_TOKENS, given["steps"] * BATCH
    of_episode = 1 + _NETWORKS * _FORWARD + 2 * _INNER_EPOCHS
    trained: dict[str, float] = {}
    if not given["model"]:
        trained[experiment.base] = given["pretrain_steps"] * BATCH * row
    if parts & {"curve", "wins", "tax"}:
        rankings = given["reward_steps"] * BATCH if given["reward_steps"] else given["reward_epochs"] * _RANKINGS
        trained[runs.sft] = given["sft_steps"] * BATCH * row
        trained |= dict.fromkeys((runs.proxy, runs.gold), rankings * _ANSWERS * _ANSWER)
        for method, name in METHODS.items():
            own = episodes * _ANSWERS * _ANSWER if method == "DPO" else episodes * answer * of_episode
            own += episodes * _INNER_EPOCHS * row if method == PTX else 0
            trained |= {f"preferences-{name}-{seed}": own for seed in experiment.every_seed}
    if parts & {"dpo_zh", "chapter"}:
        trained[runs.chapter_sft] = given["sft_steps"] * BATCH * row
        trained |= dict.fromkeys((runs.chapter_rm, runs.chapter_dpo), _QUESTIONS * _PAIR)
    if "chapter" in parts:
        trained[runs.chapter_ppo] = episodes * _PAIR * of_episode
    for run, tokens in trained.items():
        yield run, tokens, models / run / _LEDGER
    measured = experiment.prompts * answer * (1 + _NETWORKS * _FORWARD)
    if parts & {"curve", "wins"}:
        drawn = given["draws"] * seeds + experiment.draws_of_reference
        last = experiment.kept(models / runs.sft, REFERENCE_SEED, experiment.draws_of_reference)
        yield "answers of SFT", measured * drawn, last
    if "curve" in parts:
        points = len(METHODS) * seeds * given["checkpoints"]
        yield f"answers of {points} checkpoints", measured * points, experiment.picture


def _parameters(experiment: Experiment) -> float:
    """Of the base model, or of the one that is trained in its place."""
    files = (experiment.place / "models" / experiment.base).glob("*.safetensors")
    return sum(path.stat().st_size for path in files) / 4 or PRESETS[experiment.given["preset"]].parameters()


def _speed(threads: int) -> float:
    """FLOP a second of a matrix product."""
    torch.set_num_threads(threads)
    one = torch.ones(_SIDE, _SIDE)
    one @ one
    started = time.perf_counter()
    for _ in range(4):
        one @ one
    return 4 * 2 * _SIDE**3 / (time.perf_counter() - started)
