"""The model card, in the format of the Hugging Face hub: training data, settings and results of a model.

In: a run's settings, inputs and counts, from its ledger. Out: Markdown with metadata, the same for equal runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from corpus.pipeline.humanize import markdown_table
from corpus.pipeline.workspace.ledger import FileDigest

_FIGURES = ("loss", "perplexity", "bits_per_character", "bits_per_byte")


def model(name: str, settings: Mapping[str, Any], inputs: Sequence[FileDigest], counts: Mapping[str, Any]) -> str:
    """The whole card."""
    from huggingface_hub import ModelCardData  # noqa: PLC0415  # only at the end of a run

    data = ModelCardData(
        language="zh",
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["corpus-zh", "chinese", *(["conversational"] if settings["objective"] == "sft" else [])],
    )
    sections = [
        f"---\n{data.to_yaml()}\n---",
        f"# {name}",
        _opening(settings, counts),
        "## Training data\n\n" + _data(settings, counts),
        "## Results\n\n" + _results(counts),
        "![loss, bits per character and learning rate](curves.png)",
        "## Use\n\n" + _use(settings),
        "## Limits\n\n" + _LIMITS + ("" if set(counts["mixture"]) == {"demo"} else f" {_RIGHTS}"),
        "## Settings\n\n" + markdown_table(("setting", "value"), sorted(settings.items())),
        "## Where every byte came from\n\n" + _origin(inputs),
    ]
    return "\n\n".join(sections) + "\n"


_LIMITS = (
    "The model repeats what its texts say, with their errors and prejudices; it does not know what is true. It was not "
    "made safe for talk with people."
)
_RIGHTS = (
    "The texts come from collections published in 2019 whose authors did not settle the rights in the texts: ask "
    "before you use the model for more than research."
)


def _opening(settings: Mapping[str, Any], counts: Mapping[str, Any]) -> str:
    kind = "tuned on questions and answers" if settings["objective"] == "sft" else "trained on Chinese text"
    start = (
        "going on from another model" if settings["model"] == "init" else f"from random weights ({settings['model']})"
    )
    what = f"A {settings['family']} model" if "family" in settings else "A GPT"
    return (
        f"{what} of {counts['parameters']:,} parameters, {kind} {start}: {counts['steps']:,} steps, "
        f"{counts['tokens']:,} tokens in rows of {settings['seq_length']:,}, a vocabulary of "
        f"{settings['vocab_size']:,}. Made with corpus-zh."
    )


def _data(settings: Mapping[str, Any], counts: Mapping[str, Any]) -> str:
    rows = [
        (name, f"{each['asked']:.2%}", f"{each['share']:.2%}", f"{each['tokens']:,}", f"{each['epochs']:.3g}")
        for name, each in counts["mixture"].items()
    ]
    mask = "stays inside a document" if settings["document_mask"] else "sees the whole row before a token"
    return (
        markdown_table(("dataset", "asked", "given", "tokens", "epochs"), rows)
        + f"\n\nShares are of tokens. Attention {mask}."
    )


def _results(counts: Mapping[str, Any]) -> str:
    if not counts["validation"]:
        return f"No validation rows. Last training loss: {counts['loss']}."
    rows = [(name, *(f"{score[figure]:.4f}" for figure in _FIGURES)) for name, score in counts["validation"].items()]
    best = counts["best"]["step"]
    return (
        "Validation documents, after the last step; figures of a sample of their rows where `eval_rows` is not 0.\n\n"
        + markdown_table(("dataset", *(figure.replace("_", " ") for figure in _FIGURES)), rows)
        + f"\n\nThe best evaluation was that of step {best:,} of {counts['steps']:,}; its model is in `best/`."
    )


def _use(settings: Mapping[str, Any]) -> str:
    ask = "--chat" if settings["objective"] == "sft" else "--prompt 秋天"
    command = f"```sh\ncorpus sample --model THIS_FOLDER {ask}\n```"
    return f"{command}\n\n`AutoModelForCausalLM` and `AutoTokenizer` of `transformers` open it."


def _origin(inputs: Sequence[FileDigest]) -> str:
    rows = [(entry.path, f"`{entry.sha256}`") for entry in inputs]
    return (
        markdown_table(("input", "SHA-256"), rows)
        + "\n\nA ledger names the ledgers that its own stage was made from, down to the archives."
    )
