"""Who may import whom, read from the sources; and what `--help` must not load."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from corpus.pipeline.pool import run_pieces

ROOT = Path(__file__).parent.parent
BASE = {"errors", "progress", "manifest"}
PURE = {
    "chat",
    "clean",
    "filter",
    "packing",
    "trim",
    "mask",
    "mojibake",
    "fold",
    "characters",
    "minhash",
    "clusters",
    "contamination",
}
STAGES = {"download", "ingest", "dedup", "decontaminate", "tokenizer", "pack"}
SHELL = {
    "bar",
    "cli",
    "cli_options",
    "cli_report",
    "cli_sample",
    "cli_train",
    "closing",
    "complete",
    "console",
    "table",
    "views",
}
HEAVY = {"torch", "transformers", "accelerate", "datasets"}


def modules(folder: str) -> dict[str, Path]:
    return {path.stem: path for path in (ROOT / folder).glob("*.py") if path.stem not in {"__init__", "__main__"}}


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 or path.parent.name == "tests", f"{path}: relative import"
            found |= {f"{node.module}.{name.name}" for name in node.names} | {node.module or ""}
    return found


def ours(path: Path, package: str = "pipeline") -> set[str]:
    prefix = f"corpus.{package}."
    known = modules(package)
    return {name.removeprefix(prefix).split(".")[0] for name in imports(path) if name.startswith(prefix)} & known.keys()


def test_the_base_needs_nothing_of_ours() -> None:
    for name in BASE:
        assert ours(modules("pipeline")[name]) <= BASE, name


def test_rules_are_pure() -> None:
    for name in PURE:
        path = modules("pipeline")[name]
        assert ours(path) <= PURE | {"kernels"}, name
        assert not imports(path) & {"pathlib", "os", "logging", "click", "rich", "io"}, name


def test_stages_do_not_import_each_other() -> None:
    for name in STAGES:
        others = ours(modules("pipeline")[name]) & (STAGES - {name})
        assert others <= {"tokenizer"}, f"{name} imports {others}"  # the special tokens and the loader live there


def test_only_the_command_line_knows_the_terminal() -> None:
    for folder in ("pipeline", "train", "generate"):
        for name, path in modules(folder).items():
            if name not in SHELL:
                assert not imports(path) & {"click", "rich"}, name
                assert not ours(path) & SHELL, name
                calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
                assert not [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"], name


def test_the_report_imports_no_stage_that_writes_and_nothing_heavy() -> None:
    for path in (ROOT / "pipeline" / "report").glob("*.py"):
        found = imports(path)
        assert not {module.split(".")[0] for module in found} & (HEAVY | {"click", "rich"}), path.name
        assert not any(module.startswith(("corpus.train", "corpus.generate")) for module in found), path.name
        assert ours(path) & STAGES <= {"tokenizer", "dedup"}, path.name  # the loader, and the names of reasons


def test_torch_is_for_train_and_generate() -> None:
    for name, path in modules("pipeline").items():
        heavy = {module.split(".")[0] for module in imports(path)} & HEAVY
        assert heavy <= ({"datasets"} if name == "shards" else set()), name


@pytest.mark.parametrize(
    ("package", "allowed", "other"),
    [
        ("train", {"errors", "progress", "workspace", "shards", "tokenizer", "selection"}, "corpus.generate"),
        ("generate", {"errors", "progress", "tokenizer"}, "corpus.train"),
    ],
)
def test_train_and_generate_never_meet(package: str, allowed: set[str], other: str) -> None:
    for name, path in modules(package).items():
        assert ours(path) <= allowed, name
        assert not any(module.startswith(other) for module in imports(path)), name


def test_no_module_goes_by_its_folder() -> None:
    for folder in ("pipeline", "train", "generate", "tests"):
        for path in (ROOT / folder).glob("*.py"):
            tops = {module.split(".")[0] for module in imports(path)}
            assert not tops & {"pipeline", "train", "generate", "manifests"}, path


@pytest.mark.parametrize(
    "arguments", [["--help"], ["train", "--help"], ["sample", "--help"], ["evaluate", "--help"], ["--version"]]
)
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys\n"
        "from corpus.pipeline.cli import main\n"
        f"try: main({arguments!r})\n"
        "except SystemExit as leave: assert leave.code == 0, leave.code\n"
        "heavy = {'torch', 'transformers', 'datasets', 'pyarrow', 'tokenizers', 'rich', 'numpy', 'httpx'}\n"
        "heavy &= set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def loaded(_: int) -> bool:
    """Whether pandas was loaded, once pyarrow has made an array of a list and one of numpy's."""
    pa.array([1]), pa.array(np.arange(3))
    return "pandas" in sys.modules


def test_workers_do_without_pandas() -> None:
    assert find_spec("pandas") is not None  # it comes with datasets, so pyarrow would find it
    assert list(run_pieces(loaded, range(4), workers=2)) == [False] * 4
