"""`corpus demo`: every stage on the built-in dataset."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from corpus.pipeline.cli import summaries
from corpus.pipeline.cli.options import usage_errors, workspace_of, workspace_option
from corpus.pipeline.cli.sample import ending
from corpus.pipeline.terminal import console

if TYPE_CHECKING:
    from corpus.pipeline.workflows import IngestResult, PackResult
    from corpus.pipeline.workspace.layout import Workspace
    from corpus.pipeline.workspace.ledger import Report


@click.command()
@click.option(
    "--max-steps",
    type=click.IntRange(1),
    default=400,
    show_default=True,
    help="Training steps; more is better and slower.",
)
@click.option("--tasks", "with_tasks", is_flag=True, help="Then fine-tune the GPT on four small tasks: a minute more.")
@click.option(
    "--align", "with_align", is_flag=True,
    help="Then tune the GPT to answer, and by preferences: two minutes more.",
)  # fmt: skip
@workspace_option("demo-workspace")
def demo(max_steps: int, with_tasks: bool, with_align: bool, workspace_dir: Path) -> None:
    """Go the whole way on the built-in dataset, on a CPU.

    About 220 records in the five corpora's formats, written for this purpose: ingest, tokenizer, rows, a tiny
    GPT, and two samples. A model this small memorises its texts; it shows the way, not what a model can do.

    With --tasks the GPT is then fine-tuned on four small labelled sets, as GPT-1 was (classification, entailment,
    similarity, multiple choice), and asked about them by prompts, as GPT-2 was. Accuracy stands beside that of the
    most frequent label and of a linear model on characters.

    With --align the GPT is tuned on the questions (SFT), a reward model learns from 42 rankings of answers, and the
    GPT is tuned by them (DPO) and by the model (PPO with its pre-training term), as InstructGPT was. Their answers to
    questions that no ranking trained on stand side by side with their scores, and with the best of several.

    \b
    Examples:
      corpus demo
      corpus demo --tasks
      corpus demo --align
    """
    from corpus.pipeline import workflows

    workspace = workspace_of(workspace_dir)
    progress = console.Console()
    console.write("1. Records become documents")
    with usage_errors():
        result = workflows.demo(workspace, max_steps=max_steps, progress=progress, on_result=_show)
    for sample in result.samples:
        console.write(sample.prompt + sample.text)
        progress.say(ending(sample.finish, sample.seed))
    if with_tasks:
        _tasks(workspace, result.train.folder, progress, max_steps)
    if with_align:
        _align(workspace, result.train.folder, progress, max_steps, heading=7 if with_tasks else 5)
    console.write(f"\nTo see all of it as a page: corpus report --workspace {workspace.root}")


def _tasks(workspace: Workspace, model: Path, progress: console.Console, max_steps: int) -> None:
    """Fine-tune the model on tasks and ask it by prompts; two tables."""
    from corpus.pipeline.workflows.tasks import demo_tasks

    console.write("\n5. The GPT is fine-tuned on four tasks")
    found = demo_tasks(workspace, model, max_steps=max_steps, progress=progress)
    floors = list(dict.fromkeys(name for each in found.tuned for name in each.floors))
    tuned = [
        (
            each.task, each.all.items, _percent(each.all.figures["accuracy"]),
            *(_percent(each.floors[name].figures["accuracy"] if name in each.floors else None) for name in floors),
        )
        for each in found.tuned
    ]  # fmt: skip
    console.table(("test items of", "items", "accuracy", *(f"floor:\n{name}" for name in floors)), tuned)
    console.write("\n6. The GPT as it was is asked by prompts")
    asked = [
        (each.benchmark, each.items, _percent(each.summary(0)["accuracy"][0]), _percent(each.chance))
        for each in found.asked
    ]
    if asked:
        console.table(("test items of", "items", "accuracy", "chance"), asked)
    else:
        console.line(f"note: {found.unasked}")


def _align(workspace: Workspace, model: Path, progress: console.Console, max_steps: int, *, heading: int) -> None:
    """Tune the model on questions and by preferences; the figures of the reward model, then the answers."""
    from corpus.pipeline.workflows.align import demo_align

    console.write(f"\n{heading}. The GPT is tuned to answer, a reward model learns from rankings, and tunes the GPT")
    found = demo_align(workspace, model, max_steps=max_steps, progress=progress)
    console.write(f"\n{heading + 1}. Which of two held-out answers is better?")
    judged = [("reward model", found.figures), *((f"floor: {name}", each) for name, each in found.floors.items())]
    rows = [
        (name, found.figures["pairs"], _percent(each["accuracy"]), _percent(each.get("accuracy_not_longer")))
        for name, each in judged
    ]
    console.table(("", "pairs", "accuracy", "better one\nnot longer"), rows)
    console.write(f"\n{heading + 2}. Answers to {len(found.answers[0].samples)} questions of no training ranking")
    answered = [
        (each.name, "-" if each.mean is None else f"{each.mean:.3f}", _percent(each.ended), f"{each.tokens:.0f}")
        for each in found.answers
    ]
    console.table(("", "mean score", "ended", "tokens"), answered)
    console.write(found.answers[0].samples[0].prompt)
    for each in found.answers:
        console.write(f"  {each.name}: {' '.join(each.samples[0].text.split())}")


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"


def _show(result: IngestResult | PackResult | Report) -> None:
    """Print the closing table of a stage, and the heading of the next one."""
    from corpus.pipeline.workflows import IngestResult, PackResult

    if isinstance(result, IngestResult):
        summaries.ingest(result.documents, result.left_out, result.lists)
        console.write("\n2. Documents become rows of tokens")
    elif isinstance(result, PackResult):
        summaries.pack(result.rows, result.tokenizer)
        console.write("\n3. Rows train a GPT")
    else:
        summaries.losses(result.folder)
        summaries.train(result)
        console.write("\n4. The GPT answers a question it has seen, and continues an article")
