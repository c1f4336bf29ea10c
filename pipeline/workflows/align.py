"""`corpus demo --align`: the demo's model is tuned on questions, then by preferences in each way of the chapter.

In: a workspace in which `demo` is done. Out: the reward model's figures, and the answers of each model to the questions
that no ranking trained on; the runs are in `models/`.
Cost: about a minute and a half of two CPU cores.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from corpus.pipeline.manifest import BUILT_IN
from corpus.pipeline.progress import SILENT, Progress
from corpus.pipeline.workspace.layout import Workspace

if TYPE_CHECKING:
    from corpus.generate.best_of import Scorer
    from corpus.generate.config import Sample, SampleConfig
    from corpus.generate.few_shot import Form
    from corpus.pipeline.workspace.ledger import Report

RANKINGS = "demo_rankings"
STEPS = 40
"""Most steps of each run."""
PPO_STEPS = 16
BEST_OF = 8
_TOKENS = 48
"""Most tokens of an answer."""
_LENGTH, _BATCH_SIZE = 256, 8
_RUNS: Mapping[str, tuple[str, float]] = {
    "sft": ("tuned", 5e-4), "reward": ("judge", 5e-4), "dpo": ("preferred", 2e-5), "ppo": ("aligned", 6e-5),
}  # fmt: skip
"""Name and learning rate of each run."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answered:
    """A model's answers to the held-out questions."""

    name: str
    samples: tuple[Sample, ...]
    scores: tuple[float | None, ...]
    """By the reward model, of each sample."""

    @property
    def mean(self) -> float | None:
        """Mean score."""
        known = [score for score in self.scores if score is not None]
        return statistics.fmean(known) if known else None

    @property
    def ended(self) -> float:
        """Share of the answers that the model ended itself."""
        return statistics.fmean(sample.finish.reason == "separator" for sample in self.samples)

    @property
    def tokens(self) -> float:
        """Mean length."""
        return statistics.fmean(sample.finish.tokens for sample in self.samples)


@dataclass(frozen=True, kw_only=True, slots=True)
class AlignResult:
    """What `demo_align` did."""

    figures: Mapping[str, Any]
    """Of the reward model on the held-out pairs, at its last step."""
    floors: Mapping[str, Mapping[str, Any]]
    """Of what reads the pairs without a language model."""
    answers: tuple[Answered, ...]


def demo_align(
    workspace: Workspace, model: Path, *, max_steps: int = STEPS, progress: Progress = SILENT
) -> AlignResult:
    """Tune the demo's model on questions, train a reward model on the rankings that come with the package, tune by
    them, and let every model answer.

    Raises:
        ModelError, TokenizerError: `model` holds no model, or another workspace's.

    """
    from corpus.generate.chat import FirstQuestion  # torch
    from corpus.generate.few_shot import answered
    from corpus.pipeline.templates import question_prompt
    from corpus.pipeline.workflows.best_of import scorer

    _prepare(workspace, progress)
    steps = min(max_steps, STEPS)
    tuned = _train(workspace, "sft", BUILT_IN, model, steps, progress)
    reward = _train(workspace, "reward", RANKINGS, tuned.folder, steps, progress)
    preferred = _train(workspace, "dpo", RANKINGS, tuned.folder, steps, progress)
    aligned = _train(
        workspace, "ppo", RANKINGS, tuned.folder, min(steps, PPO_STEPS), progress, reward=reward.folder,
        max_new_tokens=_TOKENS, ptx_datasets=(BUILT_IN,),
    )  # fmt: skip
    judge = scorer(reward.folder, tuned.folder)
    questions = _held_out(workspace)
    asked: Sequence[tuple[str, Path, Form, int | None]] = (
        ("pre-trained", model, answered([], question_prompt), None),
        ("SFT", tuned.folder, FirstQuestion(), None),
        (f"SFT, best of {BEST_OF}", tuned.folder, FirstQuestion(), BEST_OF),
        ("DPO", preferred.folder, FirstQuestion(), None),
        ("PPO-ptx", aligned.folder, FirstQuestion(), None),
    )
    return AlignResult(
        figures=reward.ledger.counts["validation"][RANKINGS],
        floors=reward.ledger.counts["floors"]["validation"][RANKINGS],
        answers=tuple(
            _answered(name, folder, form, _asking(questions, best_of), judge, progress)
            for name, folder, form, best_of in asked
        ),
    )


def _prepare(workspace: Workspace, progress: Progress) -> None:
    """The rankings that come with the package become rankings of ids, the demo's questions chat rows."""
    from corpus.pipeline import workflows
    from corpus.pipeline.workflows import rankings

    with resources.as_file(resources.files("corpus.manifests") / "rankings") as folder:
        workflows.ingest(workspace, manifests=(folder / f"{RANKINGS}.toml",), progress=progress)
    workflows.pack(workspace, datasets=(BUILT_IN,), form="chat", seq_length=_LENGTH, progress=progress)
    rankings.pack(workspace, datasets=(RANKINGS,), seq_length=_LENGTH, progress=progress)


def _train(
    workspace: Workspace, objective: str, dataset: str, start: Path, steps: int, progress: Progress, **more: Any
) -> Report:
    from corpus.train.config import TrainConfig  # torch
    from corpus.train.run import stage

    run, rate = _RUNS[objective]
    config = TrainConfig(
        objective=objective, datasets=(dataset,), init=start, run=run, max_steps=steps, batch_size=_BATCH_SIZE,
        learning_rate=rate, dropout=0.0, **more,
    )  # fmt: skip
    with workspace.writing("train"):
        return stage.run(config, workspace, progress=progress)


def _held_out(workspace: Workspace) -> list[str]:
    """The questions of the rankings that nothing is trained on."""
    from corpus.pipeline.workflows import used_documents

    found = []
    for batch in used_documents(workspace, RANKINGS, ("text", "split", "prompt_length")):
        rows = zip(*(batch[name].to_pylist() for name in ("text", "split", "prompt_length")), strict=True)
        found += [text[:length].strip() for text, split, length in rows if split != "train"]
    return found


def _asking(questions: Sequence[str], best_of: int | None) -> SampleConfig:
    from corpus.generate.config import SampleConfig

    return SampleConfig(prompts=tuple(questions), max_new_tokens=_TOKENS, seed=1, best_of=best_of)


def _answered(name: str, folder: Path, form: Form, config: SampleConfig, judge: Scorer, progress: Progress) -> Answered:
    """Answers of one model, scored."""
    from corpus.generate import best_of
    from corpus.generate.config import Sample
    from corpus.generate.stage import joined, load, stream

    model = load(folder)
    if config.best_of:
        samples = list(best_of.samples(model, config, judge, form=form, progress=progress))
    else:
        written = joined(stream(model, config, form=form, progress=progress), progress)
        samples = [
            Sample(prompt=config.prompts[at], sample=0, text=text, finish=finish, seed=config.seed)
            for (at, _), (text, finish) in sorted(written.items())
        ]
    reader = form.reader(model)
    read = [reader(sample.prompt, sample.text) for sample in samples]
    scores = judge.score([question for question, _ in read], [answer for _, answer in read])
    return Answered(name=name, samples=tuple(samples), scores=tuple(scores))
