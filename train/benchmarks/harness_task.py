"""Questions as a task of lm-evaluation-harness, without files and without a hub.

In: questions, and the examples before them. Out: a `ConfigurableTask`, whose requests the harness sends to the model.
Invariants: contexts and answers are joined as they are (`target_delimiter` is empty), examples by an empty line; each
question of a group has the same examples in the same order; the requests of an item are its answers after its context,
then the same answers after each context of `Probes.contexts`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np
from lm_eval.api.instance import Instance
from lm_eval.api.samplers import FirstNSampler
from lm_eval.api.task import ConfigurableTask

from corpus.train.benchmarks.prompts import Question
from corpus.train.benchmarks.scores import Scored
from corpus.train.benchmarks.shots import of_group

DELIMITER = "\n\n"
"""Between two examples."""
_METRICS = ("acc", "acc_norm")


@dataclass(frozen=True, kw_only=True, slots=True)
class Probes:
    """Other contexts that an item's answers are scored after."""

    calibrate: bool = False
    pmi: bool = False

    def contexts(self, question: Question, examples: str) -> list[str]:
        """Inputs without content after the same examples; the beginning of a document; the context without the item."""
        found = [examples + text for text in question.content_free] if self.calibrate else []
        if self.pmi and question.context:
            found += ["", *([question.without] if question.without else [])]
        return found


class QuestionTask(ConfigurableTask):  # type: ignore[misc]  # lm_eval is untyped to us
    """Multiple choice over the answers of questions."""

    VERSION = 1

    def __init__(
        self, name: str, questions: Sequence[Question], *, examples: Mapping[str, Sequence[Question]], shots: int,
        probes: Probes,
    ) -> None:  # fmt: skip
        self.questions = list(questions)
        self.probes = probes
        self.samplers = {group: FirstNSampler(list(map(_record, own))) for group, own in examples.items()}
        super().__init__(
            config={
                "task": name,
                "custom_dataset": self._dataset,
                "test_split": "test",
                "output_type": "multiple_choice",
                "doc_to_text": "context",
                "doc_to_choice": "answers",
                "doc_to_target": "label",
                "target_delimiter": "",
                "fewshot_delimiter": DELIMITER,
                "fewshot_config": {"sampler": "first_n", "samples": [_record(each) for each in examples.get("", ())]},
                "num_fewshot": shots,
                "metric_list": [
                    {"metric": metric, "aggregation": "mean", "higher_is_better": True} for metric in _METRICS
                ],
            }
        )

    def _dataset(self, **_: Any) -> datasets.DatasetDict:
        """The questions in memory."""
        return datasets.DatasetDict(test=datasets.Dataset.from_list(list(map(_record, self.questions))))

    def build_all_requests(self, **_: Any) -> None:
        """The requests of all questions; the harness's own way draws a bar on the terminal."""
        self._instances = [
            request
            for number, doc in self.doc_iterator()
            for request in self.construct_requests(
                doc, self._context(doc), metadata=(self.config.task, number, self.config.repeats)
            )
        ]

    def _context(self, doc: Mapping[str, Any]) -> str:
        """The examples of a question's group, and its own context."""
        self.sampler = of_group(self.samplers, doc["group"])
        return str(self.fewshot_context(doc, self.config.num_fewshot))

    def construct_requests(self, doc: Mapping[str, Any], ctx: str, **values: Any) -> list[Instance]:
        """The answers after the context, then after each context of the probes."""
        requests = super().construct_requests(doc, ctx, **values)
        examples = ctx.removesuffix(doc["context"])
        others = self.probes.contexts(self.questions[values["metadata"][1]], examples)
        pairs = [(context, answer) for context in others for answer in doc["answers"]]
        return [
            *requests,
            *(
                Instance(request_type="loglikelihood", doc=doc, arguments=pair, idx=number, **values)
                for number, pair in enumerate(pairs, len(requests))
            ),
        ]

    def process_results(self, doc: Mapping[str, Any], results: Sequence[Any]) -> dict[str, float]:
        """The harness's `acc` and `acc_norm`, from the answers after the item's own context."""
        return dict(super().process_results(doc, results[: len(doc["answers"])]))


def scored(
    samples: Iterable[Mapping[str, Any]], questions: Sequence[Question], probes: Probes,
    lengths: Mapping[tuple[str, str], int],
) -> list[Scored]:  # fmt: skip
    """The log-likelihoods of each question from the harness's samples; `lengths` are the tokens of each pair."""
    found = []
    for sample in samples:
        question = questions[sample["doc_id"]]
        many = len(question.answers)
        logs = np.array([likelihood for likelihood, _ in sample["filtered_resps"]], dtype=np.float64)
        rows = list(logs.reshape(-1, many))
        own, others = rows[0], rows[1:]
        free = len(question.content_free) if probes.calibrate else 0
        tokens = [float(lengths[tuple(pair)]) for pair in sample["arguments"][:many]] if not question.context else None
        rest = others[free:]
        found.append(
            Scored(
                group=question.group,
                label=question.label,
                logs_k=own,
                characters_k=np.array([float(len(answer)) for answer in question.answers]),
                tokens_k=np.array(tokens) if tokens else None,
                free_k=others[:free],
                alone_k=rest[0] if rest else None,
                without_k=rest[1] if len(rest) > 1 else None,
            )
        )
    return found


def _record(question: Question) -> dict[str, Any]:
    return {
        "id": question.id,
        "group": question.group,
        "context": question.context,
        "answers": list(question.answers),
        "label": question.label,
    }
