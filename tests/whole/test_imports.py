"""What `--help` and worker processes must not load, that each wing is in the wheel and among the layers, and how long
files and functions may be.
"""

from __future__ import annotations

import ast
import configparser
import re
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from corpus.pipeline.workers import run_pieces
from tests.support.records import ROOT


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["train", "--help"], ["sample", "--help"], ["serve", "--help"], ["evaluate", "--help"], ["--version"]],
)
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys\n"
        "from corpus.pipeline.cli.main import main\n"
        f"try: main({arguments!r})\n"
        "except SystemExit as leave: assert leave.code == 0, leave.code\n"
        "heavy = {'torch', 'transformers', 'datasets', 'pyarrow', 'tokenizers', 'rich', 'numpy', 'httpx', 'uvicorn'}\n"
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


def test_commands_that_need_no_pandas_do_without(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from corpus.pipeline.cli.main import main\n"
        f"sys.argv = ['corpus', 'dedup', '--workspace', {str(tmp_path)!r}]\n"
        "try: main()\n"
        "except SystemExit as leave: assert leave.code == 1, leave.code\n"
        "import pyarrow\n"
        "pyarrow.array([1])\n"
        "assert 'pandas' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stderr=subprocess.DEVNULL)


def test_every_wing_is_in_the_wheel_and_among_the_layers() -> None:
    packages = {
        ".".join(("corpus", *path.parent.relative_to(ROOT).parts))
        for top in ("pipeline", "train", "generate", "manifests")
        for path in (ROOT / top).rglob("__init__.py")
    }
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    folders = dict(line.split(" = ") for line in setup["options"]["package_dir"].strip().splitlines())
    assert set(setup["options"]["packages"].split()) == set(folders) == packages
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(each["layers"] for each in contracts if each["type"] == "layers")
    modules = {f"corpus.pipeline.{path.stem}" for path in (ROOT / "pipeline").glob("[a-z]*.py")}
    wings = {name for name in packages if name.startswith("corpus.pipeline.")} | modules
    assert set(re.findall(r"[\w.]+", " ".join(layers))) == {*wings, "corpus.train", "corpus.generate"}


def test_no_file_is_over_400_lines_and_no_function_over_60() -> None:
    files = [path for folder in ("pipeline", "train", "generate", "tests") for path in (ROOT / folder).rglob("*.py")]
    texts = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in files}
    functions = [
        (name, node)
        for name, text in texts.items()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    assert len(functions) > 1000
    assert not [name for name, text in texts.items() if text.count("\n") > 400]
    assert not [(name, node.name) for name, node in functions if (node.end_lineno or 0) - node.lineno >= 60]
    assert len(list((ROOT / "pipeline").glob("*.py"))) <= 9
