"""A trained score on disk: `model.safetensors`, the weights and what is known of their training.

In: a file that may come from another machine. Out: `Trained`, or a SourceError that says what is wrong with the file.
Invariants: equal models are equal bytes; nothing in the file is executed.
Cost: one megabyte.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from corpus.pipeline.errors import SourceError
from corpus.pipeline.quality.scoring import BUCKETS, ORDERS, Weights

_KEY = "corpus.quality"
_HEADER_BYTES = 8
_LARGEST = 64 << 20
"""Bytes of a file that is still read."""
_MOST = 1 << 53
"""No figure of a training is larger."""


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """A model and its training."""

    model: Weights
    identity: str
    """Fingerprint of its sample and settings."""
    facts: Mapping[str, Any]
    """`positive`, the names of datasets and files of good text; `documents` and `held_back`, by class; `auc`, and
    `auc_against` by dataset; `made_with`."""


def to_bytes(trained: Trained) -> bytes:
    """A model as the bytes of its file."""
    arrays = {"weights": trained.model.weights, "bias": np.array([trained.model.bias], dtype=np.int64)}
    about = {"orders": list(ORDERS), "identity": trained.identity, "facts": trained.facts}
    return bytes(save(arrays, {_KEY: json.dumps(about, ensure_ascii=False, sort_keys=True)}))


def read(path: Path) -> Trained:
    """The model of a file.

    Raises:
        SourceError: the file is missing, or is not a model of this version.

    """
    try:
        size = path.stat().st_size
        data = path.read_bytes() if size <= _LARGEST else b""
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}") from error
    try:
        arrays = load(data)
        length = int.from_bytes(data[:_HEADER_BYTES], "little")
        about = json.loads(json.loads(data[_HEADER_BYTES : _HEADER_BYTES + length])["__metadata__"][_KEY])
        weights, (bias,) = arrays["weights"], arrays["bias"].tolist()
        facts, figures = about["facts"], [about["facts"]["auc"], *about["facts"]["held_back"].values()]
        if (weights.dtype, weights.shape) != (np.dtype(np.int32), (BUCKETS,)) or about["orders"] != list(ORDERS):
            raise ValueError("its weights are not those of this version")
        named = facts["positive"] and all(type(name) is str and name for name in facts["positive"])
        if not named or not all(isinstance(figure, int | float) and 0 <= figure <= _MOST for figure in figures):
            raise ValueError("it does not say what it was trained on")
        if type(bias) is not int or type(about["identity"]) is not str:
            raise ValueError("its bias or identity has another type")
        json.dumps(about, ensure_ascii=False, allow_nan=False).encode()  # as ledgers will hold it
    except (SafetensorError, KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise SourceError(
            f"{path} is not a model that `corpus quality` trained: {error}",
            hint="Give --model the quality/model.safetensors of a workspace.",
        ) from error
    return Trained(Weights(np.ascontiguousarray(weights), bias), about["identity"], facts)


@functools.lru_cache(maxsize=1)
def read_once(path: Path, _sha256: str) -> Weights:
    """The weights of a file, kept by a worker for all of its shards."""
    return read(path).model
