"""Best of n: which sample is kept, and that each is the one that is written without a choice."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path

import pytest

from corpus.generate import best_of, bulk
from corpus.generate.best_of import Scorer
from corpus.generate.chat import Chat, FirstQuestion
from corpus.generate.config import SampleConfig
from corpus.generate.engine.model import load
from corpus.generate.few_shot import answered
from corpus.generate.prompt_file import Prompt, PromptFile
from corpus.pipeline.errors import ModelError
from corpus.pipeline.templates import question_prompt
from corpus.pipeline.tokenizer.special_tokens import ASSISTANT, USER
from tests.support.sampling import SENTENCES, random_model, save_model, texts

CONFIG = SampleConfig(prompts=SENTENCES[:3], max_new_tokens=6, seed=4, best_of=3, batch_size=4, top_k=0)
Ids = Sequence[Sequence[int]]


def scorer(reads: list[tuple[list[int], list[int]]] | None = None, **fixed: float | None) -> Scorer:
    """Scores that depend on every token of the answer; `fixed` scores by the number of the call's text."""

    def score(questions: Ids, answers: Ids) -> list[float | None]:
        if reads is not None:
            reads.extend((list(question), list(answer)) for question, answer in zip(questions, answers, strict=True))
        return [fixed.get(f"at{at}", math.sin(sum(ids))) for at, ids in enumerate(answers)]

    return Scorer(folder=random_model(128).folder, score=score)


def test_the_best_is_kept_of_the_samples_that_are_written_without_a_choice() -> None:
    model = random_model(128)
    written = texts(model, dataclasses.replace(CONFIG, best_of=None, num_samples=3))
    found = list(best_of.samples(model, CONFIG, scorer()))
    assert [sample.prompt for sample in found] == list(CONFIG.prompts)
    for number, sample in enumerate(found):
        own = [written[number, at][0] for at in range(3)]
        scores = [math.sin(sum(model.encode((sample.prompt + text).strip()))) for text in own]
        assert sample.choice is not None
        assert sample.choice.scores == pytest.approx(scores)
        assert sample.sample == scores.index(max(scores))
        assert (sample.text, sample.finish.reason) == (own[sample.sample], written[number, sample.sample][1].reason)
        assert sample.choice.score == max(sample.choice.scores)  # type: ignore[type-var]  # no None here
    assert len({sample.sample for sample in found}) > 1


def test_equal_scores_keep_the_first_and_texts_without_a_score_are_kept_last() -> None:
    read: list[tuple[list[int], list[int]]] = [([], [number]) for number in range(6)]
    first, second = best_of.choose(read, scorer(at0=None, at1=2.0, at2=2.0, at3=None, at4=None, at5=None), many=3)
    assert (first.sample, first.score, first.scores) == (1, 2.0, (None, 2.0, 2.0))
    assert (second.sample, second.score) == (0, None)
    with pytest.raises(ModelError, match="NaN or infinity"):
        best_of.choose(read, scorer(at2=math.nan), many=3)


def test_what_a_reward_model_reads() -> None:
    """A plain prompt is part of the answer; a question is one, without the examples before it."""
    model = random_model(128)
    user, assistant = (model.tokenizer.backend_tokenizer.token_to_id(name) for name in (USER, ASSISTANT))
    config = dataclasses.replace(CONFIG, prompts=("雨停了吗？",), best_of=2, seed=1)
    asked = model.encode("雨停了吗？")
    for form, question in (
        (FirstQuestion(), [user, *asked, assistant]),
        (answered([("风呢？", "停了。")], question_prompt), [user, *asked, assistant]),
    ):
        reads: list[tuple[list[int], list[int]]] = []
        (sample,) = best_of.samples(model, config, scorer(reads), form=form)
        assert [each[0] for each in reads] == [question] * 2
        assert reads[sample.sample][1] == model.encode(sample.text.strip())


@pytest.mark.parametrize("batch_size", [1, 16])
def test_a_file_gives_the_choice_of_the_command_line(batch_size: int) -> None:
    """Windows never part the samples of a prompt."""
    model, config = random_model(128), dataclasses.replace(CONFIG, batch_size=batch_size)
    prompts = [Prompt(line=number, text=text) for number, text in enumerate(SENTENCES * 2, 1)]
    whole = dataclasses.replace(config, prompts=tuple(SENTENCES * 2))
    expected = list(best_of.samples(model, whole, scorer()))
    found = list(bulk.results(model, config, prompts, scorer=scorer(), window_characters=60))
    assert [(each.text, each.sample) for each in found] == [(each.text, each.sample) for each in expected]
    line = json.loads(found[0].to_line())
    assert (line["sample"], line["score"]) == (found[0].sample, line["scores"][found[0].sample])
    assert line["scores"] == pytest.approx(expected[0].choice and expected[0].choice.scores, abs=1e-6)


def test_an_interrupted_file_ends_with_the_same_bytes(tmp_path: Path) -> None:
    save_model(tmp_path / "model", context=128)
    model, path = load(tmp_path / "model", device="cpu"), tmp_path / "prompts.txt"
    path.write_text("".join(f"{text}\n" for text in SENTENCES * 2), encoding="utf-8")
    config = dataclasses.replace(CONFIG, batch_size=1)
    bulk.run(
        config, model, PromptFile(path), tmp_path / "whole", scorer=dataclasses.replace(scorer(), folder=model.folder)
    )
    part = dataclasses.replace(scorer(), folder=model.folder)
    calls = 0

    def score(questions: Ids, answers: Ids) -> Sequence[float | None]:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return part.score(questions, answers)

    with pytest.raises(KeyboardInterrupt):
        bulk.run(config, model, PromptFile(path), tmp_path / "o", scorer=dataclasses.replace(part, score=score))
    done = bulk.run(config, model, PromptFile(path), tmp_path / "o", scorer=part)
    assert (done.results, done.kept) == (10, 6)  # of two windows, of three prompts each
    assert (tmp_path / "o").read_bytes() == (tmp_path / "whole").read_bytes()


def test_a_conversation_goes_on_from_the_best_answer() -> None:
    """Its first answer is that to the question alone; then the reward model reads the whole conversation."""
    model = random_model(128)
    reads: list[tuple[list[int], list[int]]] = []
    config = dataclasses.replace(CONFIG, prompts=("雨停了吗？",))
    (alone,) = best_of.samples(model, config, scorer(), form=FirstQuestion())
    chat = Chat(model, config, scorer=scorer(reads))
    (piece,) = chat.ask("雨停了吗？")
    assert (piece.text, piece.sample, chat.choice) == (alone.text, alone.sample, alone.choice)
    list(chat.ask("风呢？"))
    user, assistant = (model.tokenizer.backend_tokenizer.token_to_id(name) for name in (USER, ASSISTANT))
    said = [*reads[0][0], *model.encode(piece.text.rstrip()), model.separator]
    assert reads[-1][0] == [*said, user, *model.encode("风呢？"), assistant]


def test_one_without_the_other_is_refused() -> None:
    with pytest.raises(ValueError, match="need each other"):
        Chat(random_model(128), CONFIG)
    with pytest.raises(ValueError, match="need each other"):
        list(bulk.results(random_model(128), SampleConfig(), [Prompt(line=1, text="雨")], scorer=scorer()))
