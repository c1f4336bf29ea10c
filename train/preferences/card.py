"""Model cards of reward models and policies, in the format of the Hugging Face hub.

In: a finished run. Out: Markdown with metadata, the same for equal runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from corpus.pipeline.humanize import markdown_table
from corpus.train.objective import Result
from corpus.train.preferences.figures import interval

_LIMITS = (
    "A ranking says what the people, or the model, who made it liked. The model repeats their taste and the errors of "
    "its texts; a higher score is no proof of a true answer."
)
_SCORE = """```sh
corpus score --model THIS_FOLDER --input answers.jsonl
```

`AutoModelForSequenceClassification` opens it; a score is the logit less `reward_shift`, with which demonstrations have
a mean of 0:

```python
from transformers import AutoModelForSequenceClassification, AutoTokenizer

model = AutoModelForSequenceClassification.from_pretrained("THIS_FOLDER").eval()
tokenizer = AutoTokenizer.from_pretrained("THIS_FOLDER")
turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
inputs = tokenizer.apply_chat_template(turns, return_tensors="pt", return_dict=True)
model(**inputs).logits[0, 0] - model.config.reward_shift
```"""
_SAMPLE = """```sh
corpus sample --model THIS_FOLDER --chat
```

`AutoModelForCausalLM` and `AutoTokenizer` of `transformers` open it."""


def reward(result: Result) -> str:
    """The card of a reward model."""
    picture = "![calibration of the best evaluation](calibration.png)" if result.counts["best"] else ""
    shown = _results(result.counts, ("accuracy", "accuracy_not_longer", "loss"))
    return _card(
        result, "text-classification", ["reward-model"], shown, _SCORE, picture, what="A reward model",
        how="learnt from rankings (Ouyang et al., 2022, section 3.5)",
    )  # fmt: skip


def dpo(result: Result) -> str:
    """The card of a policy."""
    columns = ("accuracy", "accuracy_not_longer", "loss", "margin", "chosen", "chosen_reference", "rejected",
               "rejected_reference")  # fmt: skip
    return _card(
        result, "text-generation", ["dpo", "conversational"], _results(result.counts, columns), _SAMPLE, "",
        what="A policy",
        how=f"learnt from rankings by DPO with beta {result.settings['beta']} (Rafailov et al., 2023)",
    )  # fmt: skip


def ppo(result: Result) -> str:
    """The card of a policy that a reward model taught."""
    settings = result.settings
    ptx = f" and rows of {', '.join(settings['ptx_datasets'])} beside them" if settings["ptx_coef"] else ""
    chat = settings["chat"]
    return _card(
        result, "text-generation", ["ppo", "rlhf", *(["conversational"] if chat else [])], _answers(result.counts),
        _SAMPLE if chat else _SAMPLE.replace("--chat", "--prompt TEXT"), "![figures of the steps](ppo.png)",
        what="A policy",
        how=f"tuned by PPO with a KL coefficient of {settings['kl_coef']}{ptx} (Ouyang et al., 2022)",
    )  # fmt: skip


def _card(
    result: Result, tag: str, tags: Sequence[str], shown: str, use: str, picture: str, *, what: str, how: str
) -> str:  # fmt: skip
    from huggingface_hub import ModelCardData  # noqa: PLC0415  # only at the end of a run

    settings, counts = result.settings, result.counts
    data = ModelCardData(
        language="zh", library_name="transformers", pipeline_tag=tag, tags=["corpus-zh", "chinese", *tags]
    )
    start = "another model" if settings["model"] == "init" else f"random weights ({settings['model']})"
    noun = "questions" if "questions" in counts else "prompts"
    opening = (
        f"{what} of {counts['parameters']:,} parameters, {how}, starting from {start}: {counts['steps']:,} steps, "
        f"{counts['rows']:,} {noun} seen, of {', '.join(settings['datasets'])}. Made with corpus-zh."
    )
    sections = [
        f"---\n{data.to_yaml()}\n---",
        f"# {result.name}",
        opening,
        "## Results\n\n" + shown,
        *([picture] if picture else []),
        "![loss, figure of the evaluations and learning rate](curves.png)",
        "## Use\n\n" + use,
        "## Limits\n\n" + _LIMITS,
        "## Settings\n\n" + markdown_table(("setting", "value"), sorted(settings.items())),
        "## Where every byte came from\n\n"
        + markdown_table(("input", "SHA-256"), [(entry.path, f"`{entry.sha256}`") for entry in result.inputs]),
    ]
    return "\n\n".join(sections) + "\n"


def _results(counts: Mapping[str, Any], columns: Sequence[str]) -> str:
    """Figures of validation and test questions, the floors among them."""
    rows: list[tuple[str, ...]] = []
    best = counts["best"]
    evaluated = [("validation", f"best, step {best['step']:,}", best["validation"])] if best else []
    evaluated += [("validation", "last", counts["validation"]), ("test", "last", counts["test"])]
    for split, label, datasets in evaluated:
        for name, found in datasets.items():
            low, high = interval(found["accuracy"], found["pairs"])
            rows.append((name, split, label, f"{low:.3f}-{high:.3f}", *(_shown(found, each) for each in columns)))
    for split, datasets in counts["floors"].items():
        for name, floors in datasets.items():
            rows += [
                (name, split, f"floor: {floor}", "", *(_shown(found, each) for each in columns))
                for floor, found in floors.items()
            ]
    if not rows:
        return f"No questions are held out. Last training loss: {counts['loss']}."
    heading = ("dataset", "questions", "what", "95 %", *(each.replace("_", " ") for each in columns))
    return (
        "Shares of the pairs of held-out questions in which the better answer has the higher score; `not longer`: of "
        "those whose better answer is not the longer one. The interval takes pairs as independent. `best/` was chosen "
        "by the validation questions, the last step by nothing.\n\n" + markdown_table(heading, sorted(rows))
    )


def _answers(counts: Mapping[str, Any]) -> str:
    """Figures of the answers to validation and test prompts, beside those of the model that the run started from."""
    columns = ("score", "reward", "kl", "rlhf_reward", "length", "ended")
    best = counts["best"]
    evaluated = [("validation", f"best, step {best['step']:,}", best["validation"])] if best else []
    evaluated += [("validation", "last", counts["validation"]), ("test", "last", counts["test"])]
    evaluated += [(split, "reference", datasets) for split, datasets in counts["reference"].items()]
    rows = [
        (name, split, label, *(_shown(found, each) for each in columns))
        for split, label, datasets in evaluated
        for name, found in datasets.items()
    ]
    if not rows:
        return f"No prompts are held out. Last training loss: {counts['loss']}."
    heading = ("dataset", "prompts", "what", *(each.replace("_", " ") for each in columns))
    return (
        "Means over one answer to each held-out prompt, drawn at temperature 1 with the same seeds. `score` is what "
        "the reward model that taught the policy says, which is no judge of it; `reward` is less the penalty of a "
        "missing end, `kl` the divergence from the reference in nats an answer, `rlhf reward` is reward less the "
        "weighted divergence, by which `best/` was chosen.\n\n" + markdown_table(heading, sorted(rows))
    )


def _shown(found: Mapping[str, Any], name: str) -> str:
    return f"{found[name]:.4f}" if name in found else ""
