"""Rewards, advantages and divergence of PPO's episodes, on arrays. Pure.

In: [n, t] arrays with a row for each episode and a column for each place of a sequence; `written` says where a token
stands that the policy wrote, in one run of columns a row. Out: arrays of the same shape, 0 where nothing was written,
or one number an episode.
"""

# Shape suffixes: n episodes, t places of a sequence.
from __future__ import annotations

from collections.abc import Callable

import numpy as np

GAMMA = 1.0
"""Discount; 1: a score at the end counts as much for the first token (Stiennon et al., 2020)."""
SMOOTHING = 0.95
"""GAE's lambda (Stiennon et al., 2020)."""
_LEAST_VARIANCE = 1e-8


def rewards(
    logs_nt: np.ndarray, reference_nt: np.ndarray, written_nt: np.ndarray, scores_n: np.ndarray, *, kl_coef: float
) -> np.ndarray:
    """[n, t] at each token -kl_coef log(policy / reference), and at the last one of an episode its score as well."""
    found_nt: np.ndarray = -kl_coef * np.where(written_nt, logs_nt - reference_nt, 0.0)
    rows_n = np.flatnonzero(written_nt.any(axis=1))
    last_n = written_nt.shape[1] - 1 - written_nt[rows_n, ::-1].argmax(axis=1)
    found_nt[rows_n, last_n] += scores_n[rows_n]
    return found_nt


def advantages(
    rewards_nt: np.ndarray, values_nt: np.ndarray, written_nt: np.ndarray, *, gamma: float = GAMMA,
    smoothing: float = SMOOTHING,
) -> np.ndarray:  # fmt: skip
    """[n, t] generalized advantage estimates (Schulman et al., 2016): sums of the errors of the values from a token on.

    `values_nt` are the values before each token; after the last token of an episode there is nothing more to gain.
    """
    found_nt = np.zeros_like(rewards_nt)
    later_n, value_n = np.zeros(len(rewards_nt)), np.zeros(len(rewards_nt))
    for place in reversed(range(rewards_nt.shape[1])):
        is_written_n = written_nt[:, place]
        errors_n = rewards_nt[:, place] + gamma * value_n - values_nt[:, place]
        later_n = np.where(is_written_n, errors_n + gamma * smoothing * later_n, 0.0)
        value_n = np.where(is_written_n, values_nt[:, place], 0.0)
        found_nt[:, place] = later_n
    return found_nt


def whitened(
    values_nt: np.ndarray, written_nt: np.ndarray, add: Callable[[np.ndarray], np.ndarray] = lambda sums: sums
) -> np.ndarray:
    """[n, t] with a mean of 0 and a variance of 1 over all tokens of all processes; `add` sums over these."""
    own = values_nt[written_nt]
    count, total = add(np.array([len(own), own.sum()], dtype=np.float64))
    mean = total / max(1.0, count)
    (squares,) = add(np.array([((own - mean) ** 2).sum()]))
    scale = np.sqrt(squares / max(1.0, count) + _LEAST_VARIANCE)
    return np.where(written_nt, (values_nt - mean) / scale, 0.0)


def divergence(logs_nt: np.ndarray, reference_nt: np.ndarray, written_nt: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[n] and [n] two estimates of the divergence of the policy from the reference, as sums over an episode's tokens.

    Both are unbiased for tokens that the policy drew: the log-ratio d, and k3 = exp(-d) - 1 + d, which is never
    negative and varies less where the two are near each other (Schulman, 2020).
    """
    apart_nt = np.where(written_nt, logs_nt - reference_nt, 0.0)
    return apart_nt.sum(axis=1), (np.expm1(-apart_nt) + apart_nt).sum(axis=1)
