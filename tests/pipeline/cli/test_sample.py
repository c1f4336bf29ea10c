"""`corpus sample` as people use it: files, pipes, a terminal, signals."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from corpus.generate import bulk
from corpus.generate import stage as sampling
from corpus.generate.config import SampleConfig
from corpus.generate.engine.model import load
from corpus.generate.prompt_file import PromptFile
from corpus.pipeline.cli import chat
from corpus.pipeline.cli import sample as cli_sample
from corpus.pipeline.cli.main import cli
from corpus.pipeline.errors import CorpusError
from tests.support.command import corpus
from tests.support.forked import Forked
from tests.support.sampling import random_model, save_model, save_reward

SAMPLE = [str(Path(sys.executable).with_name("corpus")), "sample", "--model", "run"]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with one run that has a best checkpoint; both are random."""
    folder = tmp_path_factory.mktemp("home") / "workspace"
    save_model(folder / "models" / "run", context=128)
    save_model(folder / "models" / "run" / "best", context=128, n_layer=1)
    return folder


def sample(workspace: Path, *arguments: str, given: bytes = b"") -> Result:
    """The command in this process."""
    return CliRunner().invoke(cli, ["sample", "--workspace", str(workspace), "--model", "run", *arguments], input=given)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--prompts", "p", "--prompt", "x"], "--prompt and --prompts exclude each other"),
        (["--chat", "--prompt", "x", "--translate"], "--chat and --translate exclude each other"),
        (["--chat", "--prompt", " "], "--prompt must not be empty with --chat"),
        (["--chat", "--timings"], "--chat and --timings exclude each other"),
        (["--chat", "--shots", "s"], "--shots needs --prompt or --prompts"),
        (["--translate"], "--translate needs --prompt or --prompts"),
        (["--output", "x"], "--output needs --prompts or --timings"),
        (["--prompt", "x", "--output", "x"], "--output needs --prompts or --timings"),
        (["--prompt", " ", "--translate"], "--prompt must not be empty with --translate"),
        (["--prompt", "", "--shots", "s"], "--prompt must not be empty with --shots"),
        (["--chat", "--num-samples", "2"], "--num-samples must be 1 with --chat"),
        (["--best-of", "4"], "--best-of needs --reward"),
        (["--reward", "rm"], "--reward needs --best-of"),
        (["--best-of", "1", "--reward", "rm"], "--best-of must be at least 2, is 1"),
        (["--best-of", "2", "--reward", "rm", "--num-samples", "2"], "--num-samples must be 1 with --best-of"),
        (["--best-of", "2", "--reward", "rm", "--timings"], "--best-of and --timings exclude each other"),
        (["--timings", "--batch-size", "0"], "--batch-size must be at least 1"),
    ],
)
def test_wrong_usage(workspace: Path, arguments: list[str], says: str) -> None:
    done = sample(workspace, *arguments)
    assert done.exit_code == 2
    assert says in done.stderr
    assert not done.stdout


@pytest.mark.parametrize("resumes", [False, True])
def test_an_interrupt_says_run_again_where_that_resumes(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resumes: bool
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sampling, "load", interrupted)
    (tmp_path / "prompts.txt").write_text("a\n")
    given = ("--prompts", "prompts.txt", "--output", "out") if resumes else ("--prompt", "a")
    done = corpus("sample", "--model", "run", "--workspace", workspace, *given, folder=tmp_path, code=130)
    assert done.stderr.endswith("\nInterrupted.\n") is not resumes
    assert ("Run the same command again" in done.stderr) is resumes


def test_the_results_must_not_overwrite_the_prompts(workspace: Path, tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text('"a"\n')
    (tmp_path / "link").symlink_to(path)
    assert sample(workspace, "--prompts", str(path), "--output", str(tmp_path / "link")).exit_code == 2
    assert path.read_text() == '"a"\n'


def test_a_bad_line_is_told_before_the_model_is_opened(workspace: Path, tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text('"a"\nb\n')
    done = sample(workspace, "--prompts", str(path), "--output", str(tmp_path / "o"))
    assert isinstance(done.exception, CorpusError)
    assert "line 2" in done.exception.message
    assert not done.stdout
    assert "loading" not in done.stderr
    assert [found.name for found in tmp_path.iterdir()] == ["p.jsonl"]


def test_a_folder_that_is_made_for_the_results_is_told(workspace: Path, tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("雨\n", encoding="utf-8")
    output = tmp_path / "new" / "o.jsonl"
    for is_new in (True, False):
        done = sample(workspace, "--prompts", str(tmp_path / "p.txt"), "--output", str(output), "--max-new-tokens", "1")
        assert done.exit_code == 0, done.stderr
        assert (f"--output: {output.parent} is not there, and is made" in done.stderr) is is_new


def test_from_a_pipe_to_a_pipe(workspace: Path) -> None:
    given = '{"prompt": "河边", "id": 1}\n\n"雨"\n'.encode()
    common = ("--prompts", "-", "--max-new-tokens", "5", "--seed", "3")
    done = sample(workspace, *common, "--num-samples", "2", given=given)
    assert done.exit_code == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(line["prompt"], line.get("id"), line["sample"]) for line in lines] == [
        ("河边", 1, 0), ("河边", 1, 1), ("雨", None, 0), ("雨", None, 1),
    ]  # fmt: skip
    best = sample(workspace, *common, "--model", "run/best", given=given)
    assert "run/best" in best.stderr
    assert json.loads(best.stdout.splitlines()[0])["text"] != lines[0]["text"]


def test_examples_and_translation(workspace: Path, tmp_path: Path) -> None:
    shots = tmp_path / "s.jsonl"
    shots.write_text('{"prompt": "雨停了吗？", "answer": "停了。"}\n', encoding="utf-8")
    prompts = tmp_path / "p.txt"
    prompts.write_text("风呢？\n", encoding="utf-8")
    common = ("--max-new-tokens", "4", "--seed", "1")
    plain = json.loads(sample(workspace, "--prompts", str(prompts), *common).stdout)
    given = json.loads(sample(workspace, "--prompts", str(prompts), "--shots", str(shots), *common).stdout)
    model = random_model()
    assert plain["prompt_tokens"] == len(model.encode("风呢？"))
    assert given["prompt_tokens"] == len(model.encode("雨停了吗？\n停了。")) + 1 + len(model.encode("风呢？\n"))
    done = sample(workspace, "--prompt", "It rains.", "--translate", *common)
    assert done.exit_code == 0
    assert done.stdout.startswith("It rains.\n")


def test_a_chat_through_a_pipe(workspace: Path) -> None:
    given = "雨停了吗？\n\n/reset\n雨停了吗？\n/exit\n再问？\n".encode()
    done = sample(workspace, "--chat", "--max-new-tokens", "6", "--seed", "3", given=given)
    assert done.exit_code == 0, done.stderr
    first, second = done.stdout.split("> 雨停了吗？\n")[1:]
    assert first == second
    assert first.strip()
    assert "再问" not in done.stdout
    assert done.stderr.count("(forgotten)") == 1


def test_questions_of_a_file_in_the_chat_form(workspace: Path) -> None:
    """Each is the first of a conversation: what a pipe asks after /reset."""
    common = ("--chat", "--max-new-tokens", "6", "--seed", "3")
    done = sample(workspace, *common, "--prompts", "-", given="雨停了吗？\n".encode())
    assert done.exit_code == 0, done.stderr
    talked = sample(workspace, *common, given="雨停了吗？\n".encode())
    line = json.loads(done.stdout)
    assert (line["prompt"], f"> 雨停了吗？\n{line['text']}\n") == ("雨停了吗？", talked.stdout)
    assert line["prompt_tokens"] == len(random_model().encode("雨停了吗？")) + 2


@pytest.fixture(scope="module")
def reward(workspace: Path) -> Path:
    """A reward model of the run's tokenizer, as a run of the workspace."""
    save_reward(workspace / "models" / "rm")
    return workspace / "models" / "rm"


def test_the_best_of_several_has_the_scores_of_corpus_score(workspace: Path, reward: Path, tmp_path: Path) -> None:
    given = '{"prompt": "河边", "id": 1}\n"雨"\n'.encode()
    common = ("--prompts", "-", "--max-new-tokens", "5", "--seed", "3")
    done = sample(workspace, *common, "--best-of", "3", "--reward", "rm", given=given)
    assert done.exit_code == 0, done.stderr
    assert "best of 3, at most 0.43 nats from one sample; no text is streamed" in done.stderr
    best = [json.loads(line) for line in done.stdout.splitlines()]
    drawn = [
        json.loads(line) for line in sample(workspace, *common, "--num-samples", "3", given=given).stdout.splitlines()
    ]
    (tmp_path / "texts").write_text(
        "".join(json.dumps({"answer": each["prompt"] + each["text"]}, ensure_ascii=False) + "\n" for each in drawn)
    )
    scored = corpus("score", "--model", reward, "--input", tmp_path / "texts", folder=tmp_path).stdout.splitlines()
    scores = [json.loads(line)["score"] for line in scored]
    for number, line in enumerate(best):
        own = scores[3 * number : 3 * number + 3]
        assert line["scores"] == pytest.approx(own, abs=2e-5)
        assert line["score"] == max(line["scores"])
        kept = drawn[3 * number + own.index(max(own))]
        assert {key: value for key, value in line.items() if key not in {"score", "scores"}} == kept
    taken = sample(workspace, *common, "--best-of", "2", "--reward", "rm", given=b'{"prompt": "a", "score": 1}\n')
    assert "'score' is a key of the result" in str(taken.exception)


def test_the_best_of_several_on_the_screen_and_in_a_chat(workspace: Path, reward: Path) -> None:
    common = ("--max-new-tokens", "5", "--seed", "3", "--best-of", "2", "--reward", str(reward))
    shown = sample(workspace, "--prompt", "河边", "--prompt", "雨", *common)
    assert shown.exit_code == 0, shown.stderr
    assert re.search(r"--- prompt 1\n河边.*\n--- prompt 2\n雨", shown.stdout, re.DOTALL)
    assert shown.stderr.count("of 2, score ") == 2
    talked = sample(workspace, "--chat", *common, given="雨停了吗？\n风呢？\n".encode())
    assert talked.exit_code == 0, talked.stderr
    assert talked.stderr.count("of 2, score ") == 2
    assert talked.stdout.startswith("> 雨停了吗？\n")


def test_a_reward_model_that_cannot_choose(workspace: Path, reward: Path, tmp_path: Path) -> None:
    common = ("--prompt", "雨", "--best-of", "2", "--reward")
    none = sample(workspace, *common, "run").exception
    assert isinstance(none, CorpusError)
    assert ("is no reward model" in none.message, "Give --reward" in none.hint) == (True, True)
    other = tmp_path / "other"
    shutil.copytree(reward, other)
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    tokenizer["model"]["merges"] = tokenizer["model"]["merges"][:-1]
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    different = sample(workspace, *common, str(other)).exception
    assert isinstance(different, CorpusError)
    assert "have different tokenizers" in different.message


def test_timings_are_written_where_asked(workspace: Path, tmp_path: Path) -> None:
    done = sample(workspace, "--timings", "--output", str(tmp_path / "new"), "--batch-size", "2")
    assert done.exit_code == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["timings.json", "timings.png"]
    assert "without" in done.stdout
    assert "tokens/s" in done.stdout


@pytest.mark.parametrize(
    ("folder", "name"),
    [("models/run", "run"), ("models/run/best", "run-best"), ("run/checkpoint-40", "run-checkpoint-40")],
)
def test_what_a_model_is_called(folder: str, name: str) -> None:
    assert cli_sample.name_of(Path("workspace") / folder) == name


def test_sigterm_ends_a_chat(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everywhere else it is heard as Ctrl-C, which in a chat would only stop the answer."""
    reading, writing = os.pipe()
    before = signal.getsignal(signal.SIGTERM)
    with os.fdopen(reading) as stdin, os.fdopen(writing, "wb") as ask:
        monkeypatch.setattr(sys, "stdin", stdin)
        ask.write("雨停了吗？\n".encode())
        ask.flush()
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()
        with pytest.raises(click.Abort):
            chat.talk(random_model(128), SampleConfig(max_new_tokens=1_000_000, seed=1))
    assert signal.getsignal(signal.SIGTERM) is before


def wait_for(what: str, happened: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, f"{what} never came"
        time.sleep(0.02)


def test_an_interrupted_file_goes_on_when_the_command_is_typed_again(workspace: Path, tmp_path: Path) -> None:
    prompts, output = tmp_path / "p.txt", tmp_path / "o.jsonl"
    prompts.write_text("".join(f"第{number}行\n" for number in range(40)), encoding="utf-8")
    arguments = [
        "--prompts", str(prompts), "--output", str(output), "--max-new-tokens", "40", "--batch-size", "1",
    ]  # fmt: skip
    command = [*SAMPLE, "--workspace", str(workspace), *arguments]
    part = tmp_path / "o.jsonl.part"
    with Forked(command) as first:
        wait_for("a window", lambda: part.exists() and part.read_bytes().count(b"\n") > 10)
        first.send_signal(signal.SIGINT)
        _, said = first.communicate(timeout=60)
    assert first.returncode == 130, said
    assert "Run the same command again" in said
    assert not output.exists()
    seed = json.loads((tmp_path / "o.jsonl.part.json").read_text())["seed"]
    second = sample(workspace, *arguments)
    assert second.exit_code == 0, second.stderr
    assert f"resuming {part}" in second.stderr
    assert "of them from before" in second.stdout
    whole = tmp_path / "whole.jsonl"
    config = SampleConfig(max_new_tokens=40, batch_size=1, seed=seed)
    bulk.run(config, load(workspace / "models" / "run", device="cpu"), PromptFile(prompts), whole)
    assert output.read_bytes() == whole.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["o.jsonl", "p.txt", "whole.jsonl"]


def test_a_chat_at_a_terminal(tmp_path: Path) -> None:
    """Ctrl-C stops the answer and nothing else, Ctrl-C at the prompt does nothing, Ctrl-D ends."""
    workspace = tmp_path / "workspace"
    save_model(workspace / "models" / "run", context=128, ends=False)
    command = [*SAMPLE, "--workspace", str(workspace), "--chat", "--seed", "1", "--max-new-tokens", "1000000"]
    ours, theirs = pty.openpty()
    process = Forked(command, terminal=theirs, start_new_session=True)
    os.close(theirs)
    shown = bytearray()

    def read() -> None:
        while chunk := _chunk(ours):
            shown.extend(chunk)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        wait_for("a prompt", lambda: b"> " in shown)
        os.write(ours, "雨停了吗？\n".encode())
        size = len(shown)
        wait_for("an answer", lambda: len(shown) > size + 400)
        os.kill(process.pid, signal.SIGINT)
        wait_for("the end of the answer", lambda: b"(stopped)" in shown)
        for _ in range(3):  # between the answer and the next question, and while that is typed
            os.kill(process.pid, signal.SIGINT)
            time.sleep(0.1)
        os.write(ours, b"/reset\n")
        wait_for("the reset", lambda: b"> " in shown.partition(b"(forgotten)")[2])
        os.write(ours, b"\x04")
        assert process.wait(timeout=30) == 0, shown.decode(errors="replace")
    finally:
        process.kill()
        process.wait()
        reader.join(timeout=10)
        os.close(ours)
    assert b"Traceback" not in shown


def _chunk(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 4096)
    except OSError:  # the other side has gone
        return b""
