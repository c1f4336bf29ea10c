"""Task files: TOML in, frozen values out.

In: a TOML file that says where labelled items lie, what their fields are, and how a model is asked about them. Out: a
frozen `Task`.
Invariants: an unknown key, a missing key or a wrong type raises a TaskError that names file, line and key; every
problem of a file is told at once. Nothing in a task file is executed. A prompt's context ends in punctuation or a line
break, so that no token can span context and answer.
Cost: about a millisecond.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from corpus.pipeline.errors import ManifestError, TaskError
from corpus.pipeline.manifest import NAME, SPLITS, Split
from corpus.pipeline.manifest.table import Table
from corpus.pipeline.tasks.schema import KINDS, METRICS, Kind, Prompt, Source, SplitRule, Task
from corpus.pipeline.tasks.template import names_in

DEMOS = ("demo_classification", "demo_entailment", "demo_similarity", "demo_choice", "demo_minimal_pairs")
"""Tasks that bring their items."""
TASKS = (
    "chnsenticorp", "eprstmt", "tnews", "ocnli", "cluewsc", "afqmc", "lcqmc", "c3", "chid", "cmmlu", "xcopa_zh",
    "gaokao", "zhoblimp", *DEMOS,
)  # fmt: skip
"""Built-in tasks."""
TEXTS: dict[Kind, tuple[str, ...]] = {
    "classification": ("text",), "entailment": ("premise", "hypothesis"), "similarity": ("first", "second"),
    "choice": ("context", "question"), "minimal_pairs": (),
}  # fmt: skip
"""The fields that `Item.texts` holds, in order."""
_ABOUT = ("title", "summary", "licence", "citation", "homepage")
_HINT = "docs/tasks.md explains every key; `corpus tasks show ocnli` shows a task."


def load(name_or_path: str) -> Task:
    """A built-in task by its name, or a task file by its path.

    Raises:
        TaskError: no task has this name, or the file cannot be read or is malformed.

    """
    if name_or_path in TASKS:
        resource = files("corpus.manifests") / "tasks" / f"{name_or_path}.toml"
        return parse(resource.read_text(encoding="utf-8"), where=f"{name_or_path}.toml")
    path = Path(name_or_path).expanduser()
    if not path.exists() and path.suffix != ".toml":
        raise TaskError(
            f"there is no task called {name_or_path!r}, and no task file of this name",
            hint=f"The built-in tasks are: {', '.join(TASKS)}. `corpus tasks` lists them.",
        )
    try:
        text = path.read_bytes().decode("utf-8")
    except OSError as error:
        raise TaskError(
            f"{path} cannot be read: {error.strerror}",
            hint="Give the path of a task file, or the name of a built-in task: `corpus tasks` lists them.",
        ) from error
    except UnicodeDecodeError as error:
        raise TaskError(f"{path} is not UTF-8 (byte {error.start}), so it is no task file", hint=_HINT) from error
    return parse(text, where=str(path), file=path)


def parse(text: str, *, where: str, file: Path | None = None) -> Task:
    """Parse one task file.

    Args:
        text: the TOML.
        where: the file's name in errors.
        file: the file, of a user's own task: most keys may be left out.

    Raises:
        TaskError: it lists every problem, with line and key.

    """
    try:
        table = Table.of(text, where)
    except ManifestError as error:
        raise TaskError(error.message, hint=_HINT) from error
    task = table.attempt(partial(_task, table, file), None)
    table.finish()
    if table.problems or task is None:
        raise TaskError("\n".join(table.problems), hint=_HINT)
    return task


def _task(table: Table, file: Path | None) -> Task | None:
    own, none = file is not None, tuple[str, ...]()
    kind: Kind = table.one_of("kind", list(KINDS))
    name = table.attempt(partial(_name, table), "unnamed")
    about = {key: table.attempt(partial(table.take, key, str, "" if own else None), "") for key in _ABOUT}
    fields = table.attempt(partial(_fields, table, kind), _Fields({}, none))
    labels, names = table.attempt(partial(_labels, table, kind), (none, none))
    ignored = table.attempt(partial(_spelled, table, "ignored", []), none)
    cut = table.attempt(partial(_cut, table, kind), "")
    metric = table.attempt(partial(table.one_of, "metric", METRICS, "accuracy"), "accuracy")
    source = table.attempt(partial(_source, table), Source(splits={}))
    prompt = table.attempt(partial(_prompt, table, kind, labels), None)
    if table.problems:
        return None
    return Task(
        name=name, title=about["title"] or name, kind=kind, summary=about["summary"],
        licence=about["licence"] or "not stated", citation=about["citation"], homepage=about["homepage"],
        source=source, fields=fields.names, options=fields.options, labels=labels, names=names, ignored=ignored,
        cut=cut, metric=metric, prompt=prompt, file=file,
    )  # fmt: skip


def _name(table: Table) -> str:
    name = table.take("name", str)
    if not NAME.fullmatch(name):
        raise table.error("name", f"{name!r} is not a task's name (lower-case letters, digits, - and _)")
    return name


def spelled(value: object) -> str:
    """A label as text: `true`, `1`, `entailment`; several in a list are joined. Empty for other values.

    >>> [spelled(value) for value in (True, 1, 1.0, "B", ["A", "C"], None)]
    ['true', '1', '1', 'B', 'AC', '']
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, list):
        return "".join(map(spelled, value))
    return str(value).strip() if isinstance(value, str | int) else ""


def _spelled(table: Table, key: str, default: list[object] | None = None) -> tuple[str, ...]:
    """A list of labels, as text."""
    values = tuple(spelled(value) for value in table.take(key, list, default))
    if not all(values):
        raise table.error(key, "must be a list of words or whole numbers")
    return values


def _labels(table: Table, kind: Kind) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The labels and what people call them."""
    names = table.strings("names", [])
    if kind in {"choice", "minimal_pairs"}:
        labels = _spelled(table, "labels", []) if kind == "choice" else ()
    else:
        labels = _spelled(table, "labels")
        if len(labels) < 2:
            raise table.error("labels", "at least two are needed")
    if twice := [label for label in labels if labels.count(label) > 1]:
        raise table.error("labels", f"{twice[0]!r} stands more than once")
    if names and len(names) != len(labels):
        raise table.error("names", f"there are {len(names)} names for {len(labels)} labels")
    return labels, names or labels


class _Fields(NamedTuple):
    names: dict[str, str]
    """The fields of a record by the names of the kind."""
    options: tuple[str, ...]
    """The fields of the options where each has its own."""


def _fields(table: Table, kind: Kind) -> _Fields:
    entry = table.table("fields")
    needed, optional = KINDS[kind]
    fields, options = dict[str, str](), tuple[str, ...]()
    for key in (*needed, *optional):
        if key == "options" and isinstance(entry.values.get(key), list):
            options = entry.strings(key)
            continue
        value = entry.take(key, str, None if key in needed else "")
        if value:
            fields[key] = value
        elif key in needed:
            raise entry.error(key, "must not be empty")
    for key, value in [*fields.items(), *(("options", value) for value in options)]:
        if ("{" in value or "}" in value) and names_in(value) is None:
            raise entry.error(key, f"{value!r} has a brace without its other half")
    entry.finish()
    return _Fields(fields, options)


def _cut(table: Table, kind: Kind) -> str:
    texts = TEXTS[kind]
    return table.one_of("cut", texts, texts[0]) if texts else table.take("cut", str, "")


def _source(table: Table) -> Source:
    entry = table.table("source")
    path = entry.take("path", str, "")
    split_field, unit_field = (entry.take(key, str, "") for key in ("split_field", "unit_field"))
    rules = {
        split: entry.attempt(partial(_rule, entry, split), SplitRule()) for split in SPLITS if split in entry.values
    }
    entry.known += SPLITS
    entry.finish()
    if not rules:
        raise entry.error("test", "is missing: a task needs a table [source.test], and [source.train] to train on")
    _check_rules(entry, rules, split_field)
    return Source(path=path, split_field=split_field, unit_field=unit_field, splits=rules)


def _rule(entry: Table, split: Split) -> SplitRule:
    table = entry.table(split)
    rule = SplitRule(
        values=_spelled(table, "values", []),
        files=table.strings("files", []),
        held_out_of=table.one_of("held_out_of", SPLITS) if "held_out_of" in table.values else None,
        share=table.take("share", float, 0.0),
    )
    table.known += ["held_out_of"]
    table.finish()
    if rule.held_out_of and (rule.values or rule.files):
        raise table.error("held_out_of", "excludes values and files: the items come from the other split")
    if rule.held_out_of and not 0 < rule.share < 1:
        raise table.error("share", f"{rule.share:g} is not a share between 0 and 1, such as 0.1")
    if rule.share and not rule.held_out_of:
        raise table.error("share", 'needs held_out_of, such as held_out_of = "train"')
    return rule


def _check_rules(entry: Table, rules: Mapping[Split, SplitRule], split_field: str) -> None:
    seen: dict[SplitRule, Split] = {}
    for split, rule in rules.items():
        base = rule.held_out_of
        if rule.values and not split_field:
            raise entry.error("split_field", f"is missing: [source.{split}] names values of it")
        if base and (base not in rules or rules[base].held_out_of):
            raise entry.error(f"{split}.held_out_of", f"{base!r} is no split with items of its own")
        shares = [other.share for other in rules.values() if base and other.held_out_of == base]
        if sum(shares) >= 1:
            raise entry.error(f"{split}.share", f"the shares held out of {base} leave it nothing")
        if base is None and seen.setdefault(rule, split) != split:
            raise entry.error(f"{split}.values", f"[source.{split}] and [source.{seen[rule]}] name the same items")


def placeholders(kind: Kind) -> tuple[str, ...]:
    """What a prompt's context may name in braces."""
    return (*TEXTS[kind], "options") if kind == "choice" else TEXTS[kind]


def _prompt(table: Table, kind: Kind, labels: Sequence[str]) -> Prompt | None:
    if "prompt" not in table.values:
        table.known.append("prompt")
        return None
    entry = table.table("prompt")
    prompt = Prompt(
        context=entry.take("context", str, ""),
        answers=entry.strings("answers", []),
        gap=entry.take("gap", str, ""),
        without=entry.take("without", str, ""),
        cases=_cases(entry),
    )
    entry.finish()
    contexts = {"context": prompt.context, **{f"cases.{key}": text for key, text in prompt.cases.items()}}
    for key, text in contexts.items():
        _check_names(entry, key, text, placeholders(kind))
    _check_names(entry, "without", prompt.without, ())
    if kind == "minimal_pairs":
        if prompt != Prompt():
            raise entry.error("context", "minimal pairs are scored without a prompt; leave the table [prompt] empty")
        return prompt
    if prompt.cases and kind != "choice":
        raise entry.error("cases", "are chosen by the question of a choice; this kind has none")
    if prompt.gap and kind != "choice":
        raise entry.error("gap", "stands in the context of a choice; this kind has none")
    if not prompt.context and not prompt.cases:
        raise entry.error("context", "is missing")
    if not prompt.gap:
        for key, text in contexts.items():
            _check_end(entry, key, text, required=key != "context" or not prompt.cases)
        _check_end(entry, "without", prompt.without, required=False)
    _check_answers(entry, kind, prompt.answers, labels)
    return prompt


def _cases(entry: Table) -> dict[str, str]:
    cases = entry.table("cases", {})
    return {key: cases.take(key, str) for key in list(cases.values)}


def _check_answers(entry: Table, kind: Kind, answers: Sequence[str], labels: Sequence[str]) -> None:
    if kind == "choice":
        if len(answers) != 1 or names_in(answers[0]) not in (("option",), ("letter",)):
            raise entry.error("answers", 'must be ["{option}"] or ["{letter}"], perhaps with text around it')
    elif len(answers) != len(labels):
        raise entry.error("answers", f"there are {len(answers)} answers for {len(labels)} labels")
    elif not all(answers):
        raise entry.error("answers", "an answer is empty")


def _check_names(entry: Table, key: str, text: str, known: Sequence[str]) -> None:
    """Refuse a template that names something else."""
    found = names_in(text)
    if found is None:
        raise entry.error(key, f"{text!r} has a brace without its other half")
    if other := next((name for name in found if name not in known), None):
        may = f"; it may name {', '.join(f'{{{name}}}' for name in known)}" if known else ""
        raise entry.error(key, f"{{{other}}} is not known here{may}")


def _check_end(entry: Table, key: str, text: str, *, required: bool) -> None:
    if (text or required) and not ends_safely(text):
        raise entry.error(
            key, "must end in punctuation or a line break, such as ： or \\n: else a token may span it and the answer"
        )


def ends_safely(text: str) -> bool:
    r"""Whether a token cannot span the end of a text and what follows.

    >>> [ends_safely(text) for text in ("答案：", "答案：\n", "答案是", "{text}", "")]
    [True, True, False, False, False]
    """
    return bool(re.search(r"\n\Z", text)) or (text[-1:] not in {"", "}"} and unicodedata.category(text[-1])[0] == "P")
