"""What a run says before it starts: what is trained, on what, and how long it may take.

In: a course and a trainer in place. Out: lines for a reader.
Cost: one or two passes, to time them.
"""

from __future__ import annotations

from collections.abc import Mapping

from corpus.pipeline.humanize import duration
from corpus.train.model.memory import FORWARD_SHARE, pass_seconds, step_memory
from corpus.train.run.context import Course
from corpus.train.run.trainer import CorpusTrainer

_FEW_STEPS = 50


def announce(trainer: CorpusTrainer, course: Course, *, mixture: Mapping[str, Mapping[str, float]], first: int) -> None:
    """Say what is about to be trained.

    Args:
        trainer: with the model on its device.
        course: the run.
        mixture: what `mixture.delivered` says of the whole run.
        first: steps that are done already.

    """
    plan, order, say = course.plan, course.order, course.progress.say
    parameters = trainer.model.num_parameters()
    batch_size, tokens = plan.steps.batch_size, sum(int(each["tokens"]) for each in mixture.values())
    names = ", ".join(share.name for share in plan.shares)
    say(f"{plan.name}: {parameters:,} parameters, {len(plan.train):,} rows of {names}")
    say(
        f"{plan.steps.count:,} steps of {batch_size:,} rows ({batch_size * plan.seq_length:,} tokens a step), "
        f"{plan.epochs:.3g} epochs, {tokens:,} training tokens"
    )
    if plan.weighted:
        for share in plan.shares:
            given = mixture[share.name]
            say(
                f"{share.name}: {share.asked:.1%} asked, {given['share']:.1%} given, {given['epochs']:.3g} epochs of it"
            )
    if first:
        say(f"going on from step {first:,}")
    fixed, row = step_memory(
        trainer.model,
        seq_length=plan.seq_length,
        precision=course.device.precision,
        checkpointing=course.config.gradient_checkpointing,
    )
    memory = (fixed + course.rows_per_pass * row) / 1e9
    say(f"{course.device.describe()}, {order.accumulation} x {course.rows_per_pass} rows a step, about {memory:.1f} GB")
    say(f"about {duration(_seconds(trainer, course, plan.steps.count - first))}: a guess from one timed pass")
    for note in notes(course):
        say(note)


def notes(course: Course, *, steps: int | None = None) -> tuple[str, ...]:
    """What a user should know about the result; `steps` were done, when it is known."""
    plan, config = course.plan, course.config
    found = []
    if not plan.validation:
        found.append("no dataset has validation rows: nothing is measured but the training loss")
    if plan.steps.count < _FEW_STEPS:
        found.append(f"only {plan.steps.count} steps: a smaller --batch-size or more --epochs gives more")
    if steps is not None and steps < plan.steps.count:
        found.append(f"stopped early, at step {steps:,} of {plan.steps.count:,}: the model of the best one is in best/")
    cap = plan.settings["max_repeats"]
    capped = [share.name for share in plan.shares if cap and share.taken >= int(share.rows * cap)]
    if capped:
        found.append(f"{', '.join(capped)}: seen {cap:g} times, as often as --max-repeats allows")
    if not config.init and plan.seq_length != config.preset.context:
        found.append(
            f"{config.model} is known with a context of {config.preset.context:,}, here it has {plan.seq_length:,}"
        )
    return tuple(found)


def _seconds(trainer: CorpusTrainer, course: Course, steps: int) -> float:
    """A guess at the seconds of so many steps and the evaluations between them."""
    if steps == 0:
        return 0.0
    plan, order = course.plan, course.order
    batch = trainer.data_collator(plan.train.__getitems__(order.step(0)[: course.rows_per_pass]))
    one = pass_seconds(trainer.model, batch, precision=course.device.precision)
    if course.config.gradient_checkpointing:
        one *= 1 + FORWARD_SHARE  # the Trainer switches it on later
    rows = -(-steps // plan.eval_steps) * course.evaluated_rows
    return one * (steps * order.accumulation + FORWARD_SHARE * rows / (course.rows_per_pass * course.device.world))
