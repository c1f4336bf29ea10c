"""Every check of a `SampleConfig` fires and names its flag."""

from __future__ import annotations

import math
from typing import Any

import pytest

from corpus.generate.config import SampleConfig


@pytest.mark.parametrize(
    ("flag", "values"),
    [
        ("--prompt", {"prompts": ()}),
        ("--prompt", {"prompts": ("好", "\udcff")}),
        ("--stop", {"stop": ("",)}),
        ("--stop", {"stop": ("\ud800",)}),
        ("--max-new-tokens", {"max_new_tokens": 0}),
        ("--num-samples", {"num_samples": 0}),
        ("--num-samples", {"num_samples": 2, "temperature": 0.0}),
        ("--num-samples", {"num_samples": 2, "best_of": 2}),
        ("--best-of", {"best_of": 1}),
        ("--best-of", {"best_of": 2, "temperature": 0.0}),
        ("--batch-size", {"batch_size": -1}),
        ("--temperature", {"temperature": -0.5}),
        ("--temperature", {"temperature": 1e-9}),
        ("--temperature", {"temperature": math.inf}),
        ("--temperature", {"temperature": math.nan}),
        ("--top-k", {"top_k": -1}),
        ("--top-p", {"top_p": 0.0}),
        ("--top-p", {"top_p": 1.5}),
        ("--top-p", {"top_p": math.nan}),
        ("--repetition-penalty", {"repetition_penalty": 0.0}),
        ("--repetition-penalty", {"repetition_penalty": math.nan}),
        ("--seed", {"seed": -1}),
        ("--seed", {"seed": 1 << 63}),
    ],
)
def test_a_wrong_value_names_its_flag(flag: str, values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"^{flag} "):
        SampleConfig(**values)


def test_the_extremes_are_allowed() -> None:
    SampleConfig(temperature=0, top_k=0, top_p=1e-6, repetition_penalty=0.5, seed=0, max_new_tokens=1, batch_size=1)
    SampleConfig(temperature=0.001, top_p=1, seed=(1 << 63) - 1, prompts=("", "🙂"), stop=("\n",))
