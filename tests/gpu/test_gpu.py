"""The script for GPUs, on a CPU and in small: its checks pass here, and see what is wrong."""

from __future__ import annotations

import pytest

from tests.gpu import checks
from tests.gpu.__main__ import main


@pytest.mark.usefixtures("narrow")
def test_the_checks_run_on_a_cpu(capsys: pytest.CaptureFixture[str]) -> None:
    parts = ("mask", "batched", "training", "sampling")
    assert main(["--device", "cpu", "--tiny", *(flag for part in parts for flag in ("--only", part))]) == 0
    printed = capsys.readouterr().out
    for words in (
        "bf16, eager |",
        "bf16, sdpa |",
        "single, fp32 | 6 of 6",
        "of a bare loop's",
        "generate's",
    ):
        assert words in " ".join(printed.split()), printed


def test_a_curve_that_differs_and_a_part_that_breaks_are_seen(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert checks.compare("curve", [5.0, 4.0], [5.0, 4.1]).passed is False
    assert checks.compare("curve", [5.0, 4.0], [5.0, 4.0]).passed is True
    assert main(["--device", "cpu", "--tiny", "--workspace", "/nowhere", "--only", "batched"]) == 1
    assert "FAILED  batched" in capsys.readouterr().out


@pytest.mark.slow
def test_the_slow_checks_run_on_a_cpu() -> None:
    parts = ("resume", "compile", "processes")
    assert main(["--device", "cpu", "--tiny", *(flag for part in parts for flag in ("--only", part))]) == 0
