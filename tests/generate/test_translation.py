"""Translations by a random model: prompts as packed, greedy texts as `generate` writes them, figures as sacrebleu's."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from corpus.generate.engine.model import load
from corpus.generate.translation import Translation, TranslationConfig, run, score
from corpus.pipeline.errors import BenchmarkError
from corpus.pipeline.templates import translation_prompt
from corpus.pipeline.workspace.layout import Workspace
from tests.support.ingested import make
from tests.support.records import LayRaw, lines
from tests.support.sampling import save_model

sacrebleu = pytest.importorskip("sacrebleu", reason="sacrebleu comes with the extra eval")
NAME = "translation2019zh"
_DAYS = ("Monday", "Tuesday", "Friday", "Sunday")
_CHINESE = dict(zip(_DAYS, ("一", "二", "五", "日"), strict=True))


def pair(number: int) -> dict[str, str]:
    day = _DAYS[number % 4]
    return {
        "english": f"On {day} the library opens at {number} in the morning.",
        "chinese": f"图书馆星期{_CHINESE[day]}早上{number}点开门，请带上借书证。",
    }


@pytest.fixture
def ready(workspace: Workspace, lay_raw: LayRaw) -> Workspace:
    train, valid = lines(map(pair, range(8, 40))), lines(map(pair, range(6)))
    lay_raw(NAME, {"translation2019zh_train.json": train, "translation2019zh_valid.json": valid})
    make(workspace, dataset=NAME)
    return workspace


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("translation") / "model"
    save_model(path, context=256)
    return path


def translate(folder: Path, workspace: Workspace, **settings: Any) -> Translation:
    config = TranslationConfig(model=folder, device="cpu", precision="fp32", max_new_tokens=12)
    return run(dataclasses.replace(config, **settings), workspace)


def test_documents_are_translated_greedily_in_the_form_they_were_packed_in(folder: Path, ready: Workspace) -> None:
    result = translate(folder, ready, limit=3)
    assert (result.dataset, result.split) == (NAME, "validation")
    assert [(each.prompt, each.target) for each in result.pairs] == [
        (translation_prompt(pair(number)["english"]), pair(number)["chinese"]) for number in (0, 2, 4)
    ]
    model = load(folder, device="cpu")
    model.network.generation_config.eos_token_id = model.separator
    for each, text in zip(result.pairs, result.runs[0].texts, strict=True):
        ids = torch.tensor([model.encode(each.prompt.rstrip(" "))])
        banned = [[token] for token in model.banned.tolist()]
        whole = model.network.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=12, bad_words_ids=banned,
            pad_token_id=model.separator,
        )[0, ids.shape[1] :]  # fmt: skip
        expected = model.tokenizer.decode(whole, skip_special_tokens=True)
        assert text == expected.lstrip().partition("\n")[0].rstrip("\ufffd").strip()


def test_figures_are_sacrebleus(folder: Path, ready: Workspace) -> None:
    result = translate(folder, ready, limit=4)
    references = [[each.target for each in result.pairs]]
    (only,) = result.runs
    assert only.bleu == sacrebleu.corpus_bleu(only.texts, references, tokenize="zh").score
    assert only.chrf == sacrebleu.corpus_chrf(only.texts, references).score
    assert "tok:zh" in result.signatures["bleu"]
    assert score(*(references * 2)) == pytest.approx((100, 100))


def test_examples_are_training_documents_before_the_prompt(folder: Path, ready: Workspace) -> None:
    result = translate(folder, ready, limit=2, shots=(0, 2), orders=2)
    assert [(each.shots, each.draw) for each in result.runs] == [(0, 0), (2, 0), (2, 1)]
    assert len({each.texts for each in result.runs}) == 3, "examples change what is written"
    assert result == dataclasses.replace(
        translate(folder, ready, limit=2, shots=(0, 2), orders=2), seconds=result.seconds
    )
    assert result.summary(2)["chrf"][0] == pytest.approx(sum(each.chrf for each in result.runs[1:]) / 2)
    assert [line["shots"] for line in result.samples()] == [0, 0, 2, 2, 2, 2]
    assert json.loads(json.dumps(result.to_dict()))["shots"]["2"]["bleu"]["deviation"] >= 0


def test_batches_change_nothing(folder: Path, ready: Workspace) -> None:
    alone, together = (translate(folder, ready, batch_size=size) for size in (1, 6))
    assert alone.runs == together.runs


def test_without_a_translation_dataset(folder: Path, workspace: Workspace) -> None:
    with pytest.raises(BenchmarkError, match="the workspace holds 0 datasets of translations"):
        translate(folder, workspace)
    with pytest.raises(BenchmarkError, match="baike2018qa holds no documents of a translation dataset"):
        translate(folder, workspace, dataset="baike2018qa")


def test_more_examples_than_documents(folder: Path, ready: Workspace) -> None:
    with pytest.raises(BenchmarkError, match="has 32 training documents, --shots asks for 33"):
        translate(folder, ready, shots=(33,))


def test_without_sacrebleu(folder: Path, ready: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("corpus.generate.translation.find_spec", lambda _: None)
    with pytest.raises(BenchmarkError, match="needs sacrebleu, which is not installed"):
        translate(folder, ready)
