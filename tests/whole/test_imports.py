"""What `--help` and worker processes must not load."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pyarrow as pa
import pytest

from corpus.pipeline.workers import run_pieces


@pytest.mark.parametrize(
    "arguments", [["--help"], ["train", "--help"], ["sample", "--help"], ["evaluate", "--help"], ["--version"]]
)
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys\n"
        "from corpus.pipeline.cli.main import main\n"
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
