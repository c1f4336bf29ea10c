"""A trained score on disk: the same bytes each time, and damaged files refused by name."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from corpus.pipeline.errors import SourceError
from corpus.pipeline.quality import model_file
from corpus.pipeline.quality.scoring import BUCKETS
from tests.support.records import examples
from tests.support.scored import random_model

FACTS = {"positive": ["a"], "auc": 0.5, "held_back": {}}


def test_a_model_comes_back_and_is_the_same_bytes(tmp_path: Path) -> None:
    path = random_model(tmp_path / "model")
    found = model_file.read(path)
    assert model_file.to_bytes(found) == path.read_bytes()
    assert found.facts["positive"] == ["wiki2019zh"]
    assert found.model.bias == 100
    assert model_file.read_once(path, "a") is model_file.read_once(path, "a")


@pytest.mark.parametrize(
    ("weights", "about"),
    [
        (np.zeros(BUCKETS, np.int32), None),
        (np.zeros(BUCKETS, np.int32), "{"),
        (np.zeros(BUCKETS, np.int32), json.dumps({"orders": [1, 2], "identity": "", "facts": FACTS})),
        (
            np.zeros(BUCKETS, np.int32),
            json.dumps({"orders": [2, 3], "identity": "", "facts": FACTS | {"positive": []}}),
        ),
        (np.zeros(BUCKETS, np.int32), json.dumps({"orders": [2, 3], "identity": 1, "facts": FACTS})),
        (
            np.zeros(BUCKETS, np.int32),
            json.dumps({"orders": [2, 3], "identity": "", "facts": FACTS | {"auc": "x"}}),
        ),
        *(
            (np.zeros(BUCKETS, np.int32), json.dumps({"orders": [2, 3], "identity": "", "facts": FACTS} | changed))
            for changed in (
                {"identity": "\ud800"},
                {"facts": FACTS | {"auc": float("nan")}},
                {"facts": FACTS | {"held_back": {"other": 10**400}}},
            )
        ),
        (np.zeros(BUCKETS, np.float32), json.dumps({"orders": [2, 3], "identity": "", "facts": FACTS})),
        (np.zeros(9, np.int32), json.dumps({"orders": [2, 3], "identity": "", "facts": FACTS})),
    ],
)
def test_another_model_is_refused(tmp_path: Path, weights: np.ndarray, about: str | None) -> None:
    path = tmp_path / "model"
    path.write_bytes(
        save({"weights": weights, "bias": np.zeros(1, np.int64)}, {"corpus.quality": about} if about else None)
    )
    with pytest.raises(SourceError, match="model is not a model that `corpus quality` trained"):
        model_file.read(path)


def test_damaged_files_are_refused_by_name(tmp_path: Path) -> None:
    chance, path = random.Random(4), tmp_path / "model"
    whole = random_model(path).read_bytes()
    named = list[bool]()
    header = 8 + int.from_bytes(whole[:8], "little")
    for number in range(examples(3_000, 60)):
        data = bytearray(whole[: chance.randrange(header + 20)] if number % 3 == 0 else whole)
        for _ in range(chance.randrange(1, 4)):
            if data:
                data[chance.randrange(min(len(data), header))] = chance.randrange(256)
        path.write_bytes(data)
        try:
            found = model_file.read(path)
        except SourceError as error:
            named.append(str(path) in error.message)
        else:
            assert found.model.weights.shape == (BUCKETS,)
            assert all(found.facts["positive"])
    assert all(named)
    assert len(named) > 30
