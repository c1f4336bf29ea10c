"""`corpus evaluate --benchmark`: flags, the table, the files, and what is refused in one line."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from corpus.pipeline.workspace.layout import Workspace
from tests.support.command import corpus
from tests.support.sampling import save_model
from tests.support.tasks import lay_task

installed = pytest.mark.skipif(not find_spec("lm_eval"), reason="lm-evaluation-harness comes with the extra eval")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "small"
    save_model(folder, context=96)
    return folder


@installed
def test_a_table_with_a_line_for_each_number_of_examples(model: Path, tmp_path: Path) -> None:
    done = corpus(
        "evaluate", "--model", model, "--benchmark", "demo_classification", "--benchmark", "demo_minimal_pairs",
        "--shots", 0, "--shots", 2, "--orders", 2, "--limit", 4, "--calibrate", "--pmi", "--device", "cpu",
        folder=tmp_path,
    )  # fmt: skip
    rows = [line.split() for line in done.stdout.splitlines()]
    first, second, pairs = (row for row in rows if row and row[0] in {"demo_classification", "demo_minimal_pairs"})
    assert (first[1:3], second[1:3], pairs[1:3]) == (["4", "0"], ["4", "2"], ["4", "0"])
    heads = done.stdout.partition("─")[0].split()
    assert heads[:5] == ["draws'", "per", "SLLN-", "calib-", "PMI,"] or "accuracy" in heads
    assert "note: demo_minimal_pairs: sentences are scored without examples, --shots does not apply" in done.stdout
    folder = Workspace(tmp_path / "workspace").root / "benchmarks" / "small"
    assert "results: workspace/benchmarks/small/demo_classification" in done.stdout
    assert (folder / "demo_classification" / "few_shot.png").is_file()
    assert not (folder / "demo_minimal_pairs" / "few_shot.png").exists()


@installed
def test_json_has_the_figures_of_each_number_of_examples(model: Path, tmp_path: Path) -> None:
    path = lay_task(tmp_path)
    done = corpus(
        "evaluate", "--model", model, "--benchmark", path, "--data", tmp_path / "weather.jsonl", "--output",
        tmp_path / "out", "--device", "cpu", "--json", folder=tmp_path,
    )  # fmt: skip
    (found,) = json.loads(done.stdout)["benchmarks"]
    assert (found["benchmark"], found["items"], found["chance"]) == ("weather", 1, 0.5)
    assert found["shots"]["0"]["accuracy"]["mean"] in {0.0, 1.0}
    assert Path(found["folder"]) == tmp_path / "out" / "weather"
    kept = json.loads((tmp_path / "out" / "weather" / "results.json").read_text("utf-8"))
    assert kept["shots"] == found["shots"]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--shots", 1), "--shots must stand with --benchmark"),
        (("--seed", 0), "--seed must stand with --benchmark"),
        (("--benchmark", "demo_choice", "--task", "demo_choice"), "--task and --benchmark must not both be given"),
        (("--calibrate",), "--calibrate must stand with --benchmark"),
        (("--benchmark", "demo_choice", "--stride", 8), "--stride must not stand with --benchmark"),
        (("--benchmark", "demo_choice", "--shots", -1), "--shots must be from 0 to 64, is -1"),
        (("--benchmark", "demo_choice", "--dataset", "demo"), "--dataset goes with --benchmark translation alone"),
    ],
)
def test_flags_that_do_not_go_together(model: Path, tmp_path: Path, flags: tuple[object, ...], said: str) -> None:
    done = corpus("evaluate", "--model", model, *flags, folder=tmp_path, code=2)
    assert said in done.stderr


def test_data_that_are_none(model: Path, tmp_path: Path) -> None:
    (tmp_path / "items.jsonl").write_text("no item\n", "utf-8")
    done = corpus(
        "evaluate", "--model", model, "--benchmark", "zhoblimp", "--data", tmp_path / "items.jsonl", folder=tmp_path,
        code=1,
    )  # fmt: skip
    assert "items.jsonl:1" in done.stderr
    assert "Traceback" not in done.stderr
