"""`corpus score`: the scores of the folder, line by line, and what is refused."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from corpus.pipeline.cli.main import main
from corpus.pipeline.errors import ModelError, PromptError
from corpus.pipeline.tokenizer import files
from corpus.pipeline.workspace.layout import Workspace
from corpus.train.model import load
from corpus.train.preferences import networks
from corpus.train.preferences.config import ScoreConfig
from corpus.train.preferences.scoring import RewardModel, run
from tests.support.packed import pad_id
from tests.support.rankings import causal

LINES: list[dict[str, Any]] = [
    {"prompt": "为什么天是蓝的？", "answer": "因为空气把蓝光散射得最多。", "id": 7},
    {"prompt": "为什么天是蓝的？", "answer": "茶<|endoftext|>茶"},
    {"answer": " 猫睡在暖气片上 "},
    {"prompt": "长？", "answer": "山那边的灯一盏一盏亮起来" * 9},
]


@pytest.fixture(scope="module")
def folder(ranked: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reward model with opinions, as a run leaves it."""
    place = tmp_path_factory.mktemp("rm")
    made = networks.reward(causal(), pad=pad_id())
    torch.manual_seed(1)
    torch.nn.init.normal_(made.score.weight, std=0.5)
    made.config.reward_shift = 1.25
    made.save_pretrained(place)
    for name, content in files.of_model(ranked.tokenizer).items():
        (place / name).write_bytes(content)
    return place


def lines(values: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in values).encode()


def test_scores_are_those_of_transformers(folder: Path) -> None:
    """With the chat template of the folder's tokenizer, as the model card shows it."""
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    turns = [{"role": "user", "content": LINES[0]["prompt"]}, {"role": "assistant", "content": LINES[0]["answer"]}]
    inputs = tokenizer.apply_chat_template(turns, return_tensors="pt", return_dict=True)
    plain = tokenizer("猫睡在暖气片上<|endoftext|>", return_tensors="pt")
    with torch.no_grad():
        expected = [model(**each).logits.item() - 1.25 for each in (inputs, plain)]
    found = RewardModel(folder).scores([LINES[0]["prompt"], ""], [LINES[0]["answer"], LINES[2]["answer"]])
    assert found == pytest.approx(expected, abs=1e-5)


def test_lines_come_back_in_order_with_their_scores(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_bytes(lines(LINES))
    scored = {
        size: run(ScoreConfig(
            model=folder, input=tmp_path / "in.jsonl", output=tmp_path / f"{size}.jsonl", batch_size=size, device="cpu"
        ))
        for size in (None, 1)
    }  # fmt: skip
    assert (scored[1].answers, scored[1].too_long) == (4, 1)
    together, alone = ([json.loads(line) for line in (tmp_path / f"{size}.jsonl").read_text().splitlines()]
                       for size in (None, 1))  # fmt: skip
    for given, one, other in zip(LINES, together, alone, strict=True):
        assert {key: one[key] for key in given} == given
        assert one["score"] == pytest.approx(other["score"], abs=2e-5)
    assert (together[3]["score"], together[3]["why"]) == (None, "too_long")
    assert len({line["score"] for line in together}) == 4
    assert scored[1].mean == pytest.approx(sum(line["score"] for line in together[:3]) / 3, abs=1e-5)


def test_the_command_reads_a_pipe(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines(LINES[:1]))))
    with pytest.raises(SystemExit) as ended:
        main(["score", "--model", str(folder), "--device", "cpu", "--workspace", str(tmp_path)])
    assert ended.value.code == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["id"] == 7
    assert "1 answers, mean score" in shown.err


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b'{"prompt": "a"}\n', 'in.jsonl:1: it has no "answer"'),
        (b'{"answer": "a"}\n\n{"answer": 3}\n', "in.jsonl:3"),
        (b'{"answer": "a", "prompt": ["b"]}\n', '"prompt" that is no string'),
        (b'{"answer": "a", "score": 1}\n', "'score' is a key of the result"),
        (b"nonsense\n", "in.jsonl:1"),
        (b"\xff\n", "in.jsonl:1: it is not JSON"),
        (b'{"answer": "a", "n": NaN}\n', "in.jsonl:1: it is not JSON: NaN is no number"),
        (b'{"answer": "\\ud83d"}\n', "in.jsonl:1: it holds half a character"),
        (b"[" * 200_000 + b"\n", "in.jsonl:1: it is not JSON"),
    ],
)
def test_what_is_no_answer_is_named(folder: Path, tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "in.jsonl").write_bytes(content)
    config = ScoreConfig(model=folder, input=tmp_path / "in.jsonl", output=tmp_path / "out.jsonl", device="cpu")
    with pytest.raises(PromptError, match=says):
        run(config)
    assert not (tmp_path / "out.jsonl").exists()


def test_another_model_is_refused(ranked: Workspace, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is no reward model"):
        RewardModel(ranked.models / "start")
    with pytest.raises(ModelError, match="is a reward model, which writes no text") as caught:
        load.files(folder, "--init")
    assert caught.value.hint == "Give --init the run that it started from."
    with pytest.raises(ValueError, match="--output must not be the file of --input"):
        ScoreConfig(model=tmp_path, input=tmp_path / "a", output=tmp_path / "a")
    with pytest.raises(ValueError, match="--batch-size"):
        ScoreConfig(model=tmp_path, batch_size=0)
