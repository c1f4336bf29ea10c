"""One random model for all tests of benchmarks."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.support.sampling import save_model

collect_ignore = [] if find_spec("lm_eval") else ["test_lm.py", "test_stage.py"]
"""Without the extra `eval` there is no harness to test against."""


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GPT-2 of random weights, with a tokenizer in which most Chinese characters are several tokens."""
    folder = tmp_path_factory.mktemp("benchmarks") / "ours"
    save_model(folder, context=128)
    return folder
