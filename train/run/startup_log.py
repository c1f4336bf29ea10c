"""Messages at the start of a run: what is trained, on which device, and an estimate of the time.

In: a run and its trainer. Out: lines of text.
Cost: one or two timed passes.
"""

from __future__ import annotations

from collections.abc import Mapping

from corpus.pipeline.humanize import duration, size_text
from corpus.train.model.memory import FORWARD_SHARE, pass_seconds
from corpus.train.run.context import RunContext
from corpus.train.run.trainer import CorpusTrainer

_FEW_STEPS = 50
_SLOW_STEP_S = 60.0
_USEFUL_EPOCHS = 40
"""After so many, repeats of a row teach nothing (Muennighoff et al., 2023)."""
_MANY_EPOCHS = 100
"""More of them are probably a mistake; the demo has 60."""


def log_startup(
    trainer: CorpusTrainer, context: RunContext, *, mixture: Mapping[str, Mapping[str, float]], first: int
) -> None:
    """Describe a run that begins after step `first`; `mixture` is what `delivered` gives for the whole run."""
    plan, say = context.plan, context.progress.say
    objective = plan.objective
    parameters = trainer.model.num_parameters()
    batch_size, tokens = plan.steps.batch_size, sum(int(each["tokens"]) for each in mixture.values())
    names = ", ".join(share.name for share in plan.shares)
    say(f"{plan.name}: {parameters:,} parameters, {len(objective.train):,} {objective.noun} of {names}")
    say(
        f"{plan.steps.count:,} steps of {batch_size:,} {objective.noun} "
        f"({round(batch_size * objective.row_tokens):,} tokens a step), "
        f"{plan.steps.total / len(objective.train):.3g} epochs, {tokens:,} training tokens"
    )
    if context.config.is_weighted:
        for share in plan.shares:
            given = mixture[share.name]
            say(
                f"{share.name}: {share.asked:.1%} asked, {given['share']:.1%} given, {given['epochs']:.3g} epochs of it"
            )
    if first:
        say(f"resuming from step {first:,}")
    passes = f"{context.passes} x {context.rows_per_pass} rows a step"
    fixed, row = context.fixed_bytes, context.row_bytes
    memory = f"about {size_text(fixed + context.rows_per_pass * row)} ({size_text(fixed)}, and {size_text(row)} a row)"
    say(f"{context.device.describe()}, {passes}, {memory}")
    seconds = _seconds(trainer, context, first)
    say(f"about {duration(seconds)}: an estimate from one timed pass")
    if (step := seconds / max(1, plan.steps.count - first)) > _SLOW_STEP_S:
        say(f"a step takes about {duration(step)}: a --batch-size below {batch_size:,} gives shorter ones")
    for note in notes(context):
        say(note)


def notes(context: RunContext, *, steps: int | None = None) -> tuple[str, ...]:
    """Remarks on the result; `steps` is how many were done, once that is known."""
    plan, config, objective = context.plan, context.config, context.plan.objective
    found = []
    if not objective.validation:
        found.append(f"no dataset has validation {objective.noun}: only the training loss is measured")
    if plan.steps.count < _FEW_STEPS and not config.max_steps:
        found.append(f"only {plan.steps.count} steps: a smaller --batch-size or more --epochs gives more")
    epochs = plan.steps.total / len(objective.train)
    if epochs > _MANY_EPOCHS:
        fewer = "--max-steps" if config.max_steps else "--epochs"
        if plan.steps.batch_size > len(objective.train):
            there = f"{len(objective.train):,} {objective.noun}"
            fewer = f"--batch-size ({plan.steps.batch_size:,} now, of {there}) or {fewer}"
        found.append(f"each row is seen {epochs:,.0f} times, {_USEFUL_EPOCHS} would be plenty: a smaller {fewer}")
    if plan.warmup_steps > plan.steps.count:
        flag = "--warmup" if config.warmup_tokens is None else "--warmup-tokens"
        found.append(
            f"the warm-up takes {plan.warmup_steps:,} steps and the run has {plan.steps.count:,}: "
            f"its learning rate stays below the peak; {flag} shortens it"
        )
    if steps is not None and steps < plan.steps.count:
        found.append(
            f"stopped early, at step {steps:,} of {plan.steps.count:,}: the model of the best evaluation is in best/"
        )
    cap = plan.settings["max_repeats"]
    capped = [share.name for share in plan.shares if cap and share.taken >= int(share.rows * cap)]
    if capped:
        found.append(f"{', '.join(capped)}: seen {cap:g} times, as often as --max-repeats allows")
    return (*found, *objective.notes())


def _seconds(trainer: CorpusTrainer, context: RunContext, first: int) -> float:
    """Estimated seconds of the steps after the first `first`, and of the evaluations between them."""
    plan, objective = context.plan, context.plan.objective
    steps = plan.steps.count - first
    if steps == 0:
        return 0.0
    filled = [rows for rows in context.order.passes(first) if rows] or [context.order.step(first).tolist()]
    batch = dict(objective.timed(filled[len(filled) // 2][: context.rows_per_pass]))
    one = pass_seconds(trainer.model, batch, precision=context.device.precision)
    if context.config.gradient_checkpointing:
        one *= 1 + FORWARD_SHARE  # the Trainer switches it on later
    rows = -(-steps // plan.eval_steps) * plan.evaluated_rows
    measured = FORWARD_SHARE * rows / (context.rows_per_pass * context.device.world)
    return one * objective.work * (steps * context.passes + measured)
