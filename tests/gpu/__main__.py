"""`python -m tests.gpu`: the checks and measurements that need a GPU, in about ten minutes; see docs/gpu.md.

In: flags. Out: a line for each check as it ends, and a table in Markdown. Exit code 1 where a check failed.
"""

from __future__ import annotations

import argparse
import platform
import re
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
import transformers

from corpus.pipeline.humanize import markdown_table
from tests.gpu import checks, speed
from tests.gpu.setting import Result, Setting, line, prepare, rows

PARTS: dict[str, Callable[[Setting], Iterator[Result]]] = {
    "mask": checks.packed_equals_separate,
    "resume": checks.resume,
    "compile": checks.compiled,
    "processes": checks.two_processes,
    "batched": checks.batched_equals_single,
    "training": speed.training,
    "sampling": speed.sampling,
}
PAGE = Path(__file__).parents[2] / "docs" / "gpu.md"
_BEGIN, _END = "<!-- measured: begin -->\n", "<!-- measured: end -->\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the parts that are asked for; a part that breaks is a failed line, and the others run."""
    given = _parse(arguments)
    results: list[Result] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        setting = Setting(
            workspace=prepare(folder, given=given.workspace, tiny=given.tiny), device=given.device, tiny=given.tiny,
            folder=folder, peak=given.peak,
        )  # fmt: skip
        for part in given.only or PARTS:
            for result in _run(part, setting):
                print(line(result), flush=True)
                results.append(result)
    table = page(given.device, results)
    print(f"\n{table}")
    if given.page:
        text = PAGE.read_text(encoding="utf-8")
        begin, end = text.index(_BEGIN) + len(_BEGIN), text.index(_END)
        PAGE.write_text(f"{text[:begin]}{table}\n{text[end:]}", encoding="utf-8")
    return int(any(result.passed is False for result in results))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.gpu", description=__doc__)
    parser.add_argument("--device", default="cuda", help="cuda, xpu, mps or cpu")
    parser.add_argument("--tiny", action="store_true", help="a model and rows for a CPU: a test of the checks")
    parser.add_argument("--workspace", type=Path, help="packed rows to use; the demo's without it")
    parser.add_argument("--only", action="append", choices=list(PARTS), help="one part; may be repeated")
    parser.add_argument("--peak", type=float, help="the data sheet's dense bf16 FLOP/s, such as 989e12")
    parser.add_argument("--page", action="store_true", help="put the table into docs/gpu.md")
    return parser.parse_args(arguments)


def _run(part: str, setting: Setting) -> Iterator[Result]:
    start = time.perf_counter()
    try:
        yield from PARTS[part](setting)
    except Exception as error:  # noqa: BLE001  # any failure is a line of the table
        traceback.print_exc()
        yield Result(what=part, value=f"{type(error).__name__}: {str(error)[:200]}", wanted="a result", passed=False)
    print(f"{part}: {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)


def page(device: str, results: Sequence[Result]) -> str:
    """The table, with the machine below it."""
    name = torch.cuda.get_device_name() if device == "cuda" else platform.processor() or device
    lines = [tuple(re.sub(r"\s+", " ", cell).replace("|", "/") for cell in each) for each in rows(list(results))]
    table = markdown_table(("what", "result", "wanted", "passed"), lines)
    return (
        f"{table}\n\n{name}, torch {torch.__version__}, transformers {transformers.__version__}, `python -m tests.gpu`."
    )


if __name__ == "__main__":
    sys.exit(main())
