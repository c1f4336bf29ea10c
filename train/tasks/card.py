"""The model card of a task model, in the format of the Hugging Face hub.

In: a finished run, its task and its form. Out: Markdown with metadata, the same for equal runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from corpus.pipeline.humanize import markdown_table
from corpus.pipeline.tasks import Task
from corpus.train.objective import Result
from corpus.train.tasks.forms import Form

_ORDER = ("loss", "accuracy", "macro_f1", "mcc")
_LIMITS = (
    "The figures are of one validation set, and `best/` was chosen by it: `corpus evaluate --task` measures the test "
    "set once, beside the floors. The model repeats the prejudices of its texts and labels."
)
_PIPELINE = """from transformers import pipeline

classify = pipeline("text-classification", "THIS_FOLDER")
classify({example}, top_k=None)"""
_ORDERS = """from transformers import AutoModelForSequenceClassification, AutoTokenizer

model = AutoModelForSequenceClassification.from_pretrained("THIS_FOLDER").eval()
tokenizer = AutoTokenizer.from_pretrained("THIS_FOLDER")
one, other = (model(**tokenizer(*pair, return_tensors="pt")).logits for pair in ((first, second), (second, first)))
(one + other).softmax(-1)  # the layer has no bias: the sum of the logits is the layer of the sum of the states"""
_OURS = """from pathlib import Path

from corpus.pipeline.tasks import Item
from corpus.train.tasks.saved import TaskModel

model = TaskModel.open(Path("THIS_FOLDER"))
item = Item(id="1", texts=({texts}), {options}label=0, place="")
model.logits(model.encoded([item]))  # one score for each {what}"""


def model(result: Result, task: Task, form: Form) -> str:
    """The whole card."""
    from huggingface_hub import ModelCardData  # noqa: PLC0415  # only at the end of a run

    settings, counts = result.settings, result.counts
    tag = None if form.is_choice or form.both_orders else "text-classification"
    data = ModelCardData(
        language="zh", library_name="transformers", pipeline_tag=tag, tags=["corpus-zh", "chinese", task.kind]
    )
    sections = [
        f"---\n{data.to_yaml()}\n---",
        f"# {result.name}",
        _opening(settings, counts, task),
        "## Task\n\n" + _task(task, form, counts),
        "## Results\n\n" + _results(settings, counts),
        *(["![confusion matrix of the best evaluation](confusion.png)"] if counts["best"] else []),
        "![loss, figure of the evaluations and learning rate](curves.png)",
        "## Use\n\n" + use(form),
        "## Limits\n\n" + _LIMITS,
        "## Settings\n\n" + markdown_table(("setting", "value"), sorted(settings.items())),
        "## Where every byte came from\n\n"
        + markdown_table(("input", "SHA-256"), [(entry.path, f"`{entry.sha256}`") for entry in result.inputs]),
    ]
    return "\n\n".join(sections) + "\n"


def use(form: Form) -> str:
    """How the folder is opened, or why `transformers` alone does not read the items as training did."""
    evaluate = "```sh\ncorpus evaluate --model THIS_FOLDER --task NAME\n```\n\n"
    if form.is_choice:
        ours = _OURS.format(texts="context, question", options="options=(a, b), ", what="option")
        return (
            f"{evaluate}`transformers` has no class for multiple choice with a causal model, so no pipeline predicts "
            "with it. `AutoModelForSequenceClassification` opens the folder and gives the score of one option; the "
            f"options of an item are compared by it.\n\n```python\n{ours}\n```"
        )
    if form.both_orders:
        ours = _OURS.format(texts="first, second", options="", what="label")
        return (
            f"{evaluate}The states of both orders of a pair are added, and a pipeline of `transformers` reads one. "
            "`AutoModelForSequenceClassification` opens the folder, and two passes give the logits:\n\n"
            f"```python\n{_ORDERS}\n```\n\nThe same with this package:\n\n```python\n{ours}\n```"
        )
    example = '{"text": premise, "text_pair": hypothesis}' if form.is_pair else "text"
    return (
        f"{evaluate}`AutoModelForSequenceClassification` opens it, and the tokenizer puts its special tokens around a "
        f"text by itself:\n\n```python\n{_PIPELINE.format(example=example)}\n```"
    )


def _opening(settings: Mapping[str, Any], counts: Mapping[str, Any], task: Task) -> str:
    start = (
        "fine-tuned from another model" if settings["model"] == "init" else f"of random weights ({settings['model']})"
    )
    return (
        f"A model of {counts['parameters']:,} parameters, {start} on {task.title}: {counts['steps']:,} steps, "
        f"{counts['rows']:,} items seen. {task.summary} Made with corpus-zh, in the input forms of GPT (Radford et "
        "al., 2018)."
    )


def _task(task: Task, form: Form, counts: Mapping[str, Any]) -> str:
    rows = [
        (split, f"{items:,}", f"{counts['cut_items'][split]:,}", f"{counts['cut_tokens'][split]:,}")
        for split, items in counts["items"].items()
    ]
    about = [
        f"- kind: {task.kind}" + (", both orders" if form.both_orders else ""),
        f"- source: {task.homepage or 'not stated'}",
        f"- licence: {task.licence or 'not stated'}",
        f"- citation: {task.citation or 'not stated'}",
    ]
    table = markdown_table(("split", "items", "items that were cut", "tokens cut"), rows)
    return "\n".join(about) + f"\n\n{table}\n\nItems longer than the context lose the end of `{form.cut}`."


def _results(settings: Mapping[str, Any], counts: Mapping[str, Any]) -> str:
    if not counts["best"]:
        return f"No validation items. Last training loss: {counts['loss']}."
    best, name = counts["best"], settings["task"]
    evaluations = ((f"best, step {best['step']:,}", best["validation"]), ("last", counts["validation"]))
    names = [figure for figure in _ORDER if figure in best["validation"][name]]
    rows: list[Sequence[str]] = [
        (label, *(f"{found[name][figure]:.4f}" for figure in names)) for label, found in evaluations
    ]
    for floor, found in counts["floors"].items():
        rows.append((f"floor: {floor}", *(f"{found[figure]:.4f}" if figure in found else "-" for figure in names)))
    return (
        f"{counts['items']['validation']:,} validation items, or a sample of `eval_rows` of them. The best evaluation "
        f"by {settings['metric']} is in `best/`.\n\n"
        + markdown_table(("evaluation", *(figure.replace("_", " ") for figure in names)), rows)
    )
