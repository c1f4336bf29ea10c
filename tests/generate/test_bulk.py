"""`corpus sample --prompts`: order, independence, bounded reading, and what an interruption leaves."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from corpus.generate import bulk
from corpus.generate.bulk import WINDOW_BATCHES, Done, results
from corpus.generate.config import SampleConfig
from corpus.generate.engine.model import load
from corpus.generate.few_shot import Form
from corpus.generate.prompt_file import Prompt, PromptFile
from corpus.generate.results_file import ResultsFile
from corpus.pipeline.errors import BusyError, DiskError, ModelError, PromptError
from corpus.pipeline.progress import Progress
from tests.support.sampling import SENTENCES, in_numbers, random_model, save_model, texts, tokens
from tests.support.sampling_notes import Notes

CONFIG = SampleConfig(max_new_tokens=5, seed=4, num_samples=2, batch_size=3, temperature=0.9)
TEXTS = [sentence[: 3 + 5 * (number % 4)] + str(number) for number, sentence in enumerate(SENTENCES * 8)]


def numbered(count: int = len(TEXTS)) -> list[Prompt]:
    return [Prompt(line=number, text=text, rest={"id": number}) for number, text in enumerate(TEXTS[:count], 1)]


def test_results_come_in_the_order_of_the_prompts_and_are_what_each_prompt_alone_gives() -> None:
    model = random_model(128)
    found = list(results(model, CONFIG, numbered()))
    assert [(result.prompt.line, result.sample) for result in found] == [(n, s) for n in range(1, 41) for s in (0, 1)]
    for line in (1, 7, 40):
        alone = list(results(model, CONFIG, numbered()[line - 1 : line]))
        assert [result.text for result in alone] == [result.text for result in found[2 * line - 2 : 2 * line]]
    assert len({result.text for result in found}) > 70
    for size in (1, 16):
        other = results(model, dataclasses.replace(CONFIG, batch_size=size), numbered())
        assert [result.text for result in other] == [result.text for result in found]


def test_a_file_gives_what_prompts_of_the_command_line_give() -> None:
    model = random_model(128)
    config = dataclasses.replace(CONFIG, prompts=tuple(TEXTS[:6]))
    expected = texts(model, config)
    for result in results(model, CONFIG, numbered(6)):
        text, finish = expected[result.prompt.line - 1, result.sample]
        assert result.text == text
        assert (result.finish.reason, result.finish.tokens) == (finish.reason, finish.tokens)
        assert (result.finish.prompt_tokens, result.seed) == (finish.prompt_tokens, 4)
        assert result.finish.logprob == pytest.approx(finish.logprob, abs=1e-3)


def test_greedy_side_by_side_is_greedy_alone() -> None:
    model = random_model(128)
    config = SampleConfig(temperature=0, max_new_tokens=20)
    encoded = [model.encode(text) for text in TEXTS]
    alone = [tokens(model, [ids], dataclasses.replace(config, batch_size=1))[0, 0] for ids in encoded[:12]]
    found = results(in_numbers(model), config, numbered(12))
    assert [list(map(int, result.text.split())) for result in found] == alone


def test_a_prompt_longer_than_the_model_reads_is_counted_whole() -> None:
    model = random_model(32)
    long = Prompt(line=1, text="河边的柳树" * 30)
    notes = Notes()
    short = Prompt(line=1, text="雨")
    given = [short, dataclasses.replace(long, line=2), dataclasses.replace(long, line=3)]
    _, found, _ = results(model, SampleConfig(temperature=0, max_new_tokens=5), given, progress=notes)
    ids = model.encode(long.text)
    assert found.finish.prompt_tokens == len(ids) > 32
    assert len(notes.lines) == 1
    assert f"line 2 has {len(ids)} tokens" in notes.lines[0]
    assert found.text == texts(model, SampleConfig(prompts=(long.text,), temperature=0, max_new_tokens=5))[0, 0][0]


def test_no_more_prompts_are_read_than_a_window_holds() -> None:
    read = 0

    def endless() -> Iterator[Prompt]:
        nonlocal read
        while True:
            read += 1
            yield Prompt(line=read, text="雨")

    config = SampleConfig(max_new_tokens=2, batch_size=2)
    found = results(random_model(), config, endless())
    for _ in range(3 * WINDOW_BATCHES * 2):
        next(found)
    assert read == 3 * WINDOW_BATCHES * 2 + 1
    config = SampleConfig(max_new_tokens=1, num_samples=10**9)
    first = next(results(random_model(), config, endless()))
    assert first.sample == 0


def test_a_window_of_long_prompts_is_short() -> None:
    read: list[int] = []

    def given() -> Iterator[Prompt]:
        for prompt in numbered():
            read.append(prompt.line)
            yield prompt

    next(results(random_model(128), SampleConfig(max_new_tokens=1), given(), window_characters=50))
    assert 2 < len(read) < 10


class Stop(Exception):  # noqa: N818  # what an interruption is: no error
    """Raised in the middle, as Ctrl-C would be."""


class StopAt(Progress):
    """Interrupts a run after so many results."""

    def __init__(self, at: int) -> None:
        self.left = at
        self.said: list[str] = []

    def advance(self, amount: int) -> None:
        self.left -= amount
        if self.left <= 0:
            raise Stop

    def say(self, message: str) -> None:
        self.said.append(message)


Write = Callable[..., Done]


@pytest.fixture(scope="module")
def write(tmp_path_factory: pytest.TempPathFactory) -> Write:
    """`bulk.run` with a model, which needs its folder."""
    folder = tmp_path_factory.mktemp("model")
    save_model(folder, context=128)
    model = load(folder, device="cpu")

    def run(file: PromptFile, output: Path, config: SampleConfig = CONFIG, **others: Any) -> Done:
        return bulk.run(config, model, file, output, **others)

    return run


@pytest.fixture
def file(tmp_path: Path) -> PromptFile:
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps({"prompt": text, "id": text[-2:]}) + "\n\n" for text in TEXTS))
    return PromptFile(path)


def test_the_file_of_results(write: Write, file: PromptFile, tmp_path: Path) -> None:
    output = tmp_path / "new" / "results.jsonl"
    done = write(file, output)
    lines = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    assert [line["id"] for line in lines] == [text[-2:] for text in TEXTS for _ in (0, 1)]
    assert (done.results, done.kept) == (80, 0)
    assert done.tokens == sum(line["tokens"] for line in lines)
    assert [path.name for path in output.parent.iterdir()] == ["results.jsonl"]


def test_an_interrupted_file_goes_on_to_the_same_bytes(write: Write, file: PromptFile, tmp_path: Path) -> None:
    whole, output = tmp_path / "whole.jsonl", tmp_path / "results.jsonl"
    write(file, whole)
    output.write_text("from before\n")
    window = WINDOW_BATCHES * CONFIG.batch_size
    for at, kept in ((5, 0), (window + 1, 0), (2 * window + 1, window), (3 * window + 4, 2 * window)):
        with pytest.raises(Stop):
            write(file, output, progress=StopAt(at))
        part = tmp_path / "results.jsonl.part"
        assert part.exists() == bool(kept or at > 5)
        assert not kept or part.read_bytes().count(b"\n") >= kept
        assert output.read_text() == "from before\n"
    with part.open("ab") as torn:
        torn.write(b'{"prompt": "half a li')
    notes = StopAt(1000)
    done = write(file, output, progress=notes)
    assert done.kept == 3 * window
    assert notes.said == [f"resuming {part}"]
    assert output.read_bytes() == whole.read_bytes()
    assert not list(tmp_path.glob("results.jsonl.part*"))


def test_zeros_of_a_lost_power_are_not_kept(write: Write, file: PromptFile, tmp_path: Path) -> None:
    whole, output = tmp_path / "whole.jsonl", tmp_path / "results.jsonl"
    write(file, whole)
    with pytest.raises(Stop):
        write(file, output, progress=StopAt(60))
    part = tmp_path / "results.jsonl.part"
    lines = part.read_bytes().splitlines(keepends=True)
    lines[30] = b"\0" * (len(lines[30]) - 1) + b"\n"
    part.write_bytes(b"".join(lines))
    assert write(file, output).kept == 24
    assert output.read_bytes() == whole.read_bytes()


def test_a_part_that_was_whole_is_only_renamed(write: Write, file: PromptFile, tmp_path: Path) -> None:
    whole, output = tmp_path / "whole.jsonl", tmp_path / "results.jsonl"
    write(file, whole)
    with pytest.raises(Stop):
        write(file, output, progress=StopAt(60))
    (tmp_path / "results.jsonl.part").write_bytes(whole.read_bytes())
    assert write(file, output).kept == 80
    assert output.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("change", ["top_k", "prompts", "seed", "model"])
def test_another_job_begins_anew_and_says_why(write: Write, file: PromptFile, tmp_path: Path, change: str) -> None:
    output = tmp_path / "results.jsonl"
    with pytest.raises(Stop):
        write(file, output, progress=StopAt(60))
    config, notes = CONFIG, Notes()
    if change == "prompts":
        path = Path(file.name)
        path.write_text(path.read_text().replace("0", "1"))
    elif change == "model":
        changed = tmp_path / "model"
        save_model(changed, context=128, n_layer=1)
        done = bulk.run(config, load(changed, device="cpu"), file, output, progress=notes)
    else:
        config = dataclasses.replace(CONFIG, top_k=7) if change == "top_k" else dataclasses.replace(CONFIG, seed=7)
    if change != "model":
        done = write(file, output, config, progress=notes)
    assert (done.results, done.kept) == (80, 0)
    assert change in notes.lines[0]
    assert "rerunning all prompts because" in notes.lines[0]
    if change in {"top_k", "seed"}:
        other = tmp_path / "other.jsonl"
        write(file, other, config)
        assert output.read_bytes() == other.read_bytes()


def test_a_seed_that_nobody_chose_is_that_of_the_run_before(write: Write, file: PromptFile, tmp_path: Path) -> None:
    whole, output = tmp_path / "whole.jsonl", tmp_path / "results.jsonl"
    write(file, whole)
    with pytest.raises(Stop):
        write(file, output, progress=StopAt(60))
    assert write(file, output, dataclasses.replace(CONFIG, seed=99), new_seed=True).kept == 48
    assert output.read_bytes() == whole.read_bytes()


def test_a_pipe_leaves_nothing_behind_and_a_bad_line_ends_it(write: Write, tmp_path: Path) -> None:
    output = tmp_path / "results.jsonl"
    data = "".join(f"{text}\n" for text in TEXTS).encode()
    with pytest.raises(PromptError, match="standard input, line 41"):
        write(PromptFile(io.BytesIO(data + b"\xff\n")), output)
    assert not list(tmp_path.iterdir())
    assert write(PromptFile(io.BytesIO(data)), output).results == 80
    assert [path.name for path in tmp_path.iterdir()] == ["results.jsonl"]


def test_two_commands_do_not_write_one_file(write: Write, file: PromptFile, tmp_path: Path) -> None:
    output = tmp_path / "results.jsonl"
    with ResultsFile(output, {}), pytest.raises(BusyError, match="another command is writing"):
        write(file, output)
    assert write(file, output).results == 80


def test_places_that_cannot_be_written_are_named(write: Write, file: PromptFile, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for output in (tmp_path, tmp_path / "file" / "inside", Path("/proc/nope/results"), tmp_path / ("x" * 300)):
        with pytest.raises(DiskError) as caught:
            write(file, output)
        assert "--output" in caught.value.hint


def test_a_part_that_was_renamed_meanwhile_is_not_written_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between opening and locking, the command that held it may finish: what is open then is its result."""
    output = tmp_path / "results.jsonl"

    def finished(*_: object) -> None:
        (tmp_path / "results.jsonl.part").replace(output)

    monkeypatch.setattr("fcntl.flock", finished)
    with pytest.raises(BusyError):
        ResultsFile(output, {})
    assert [path.name for path in tmp_path.iterdir()] == ["results.jsonl"]


def test_examples_that_do_not_fit_leave_nothing_behind(write: Write, file: PromptFile, tmp_path: Path) -> None:
    form = Form(shots=("河边的柳树" * 50,))
    with pytest.raises(ModelError, match="examples"):
        write(file, tmp_path / "results.jsonl", form=form)
    assert [path.name for path in tmp_path.iterdir()] == ["prompts.jsonl"]
