"""What the four networks of PPO say of episodes, before the policy learns from them.

In: prompts and answers, the policy with its value model, and the networks that stay as they are. Out: `Episodes`.
Invariants: sequences are padded on the right, so positions begin at 0; policy and reference read the same tensors in
the same passes, so with equal weights their log-probabilities are equal to the last bit; nothing is learnt here.
Cost: a forward pass of each of the four networks over each sequence.
"""

# Shape suffixes: n episodes, t places of a sequence, m written tokens of a pass.
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from corpus.train.data.collate import PADDING_TOKENS
from corpus.train.preferences import actor_critic


@dataclass(frozen=True, kw_only=True, slots=True)
class Judges:
    """The networks that do not learn."""

    reference: Any
    """The model that the policy starts from."""
    reward: Any
    """The reward model."""
    shift: float
    """What its logit is more than its score."""
    separator: int
    pad: int


@dataclass(kw_only=True, slots=True)
class Episodes:
    """Prompts and answers of one process; a row without a written token is no episode."""

    ids_nt: np.ndarray
    mask_nt: np.ndarray
    """1 where a token stands, 0 in the padding."""
    written_nt: np.ndarray
    """Whether the policy wrote the token."""
    ended_n: np.ndarray
    """Whether the answer has its end."""
    scores_n: np.ndarray
    """Scores of the reward model."""
    logs_nt: np.ndarray = field(init=False)
    """Log-probabilities of written tokens under the policy; 0 elsewhere, as in the following."""
    reference_nt: np.ndarray = field(init=False)
    """The same under the reference."""
    entropy_nt: np.ndarray = field(init=False)
    """Entropy of the policy where it wrote the token."""
    values_nt: np.ndarray = field(init=False)
    """What the value model expects before the token."""

    def __post_init__(self) -> None:
        """Begin without a word of the networks."""
        for name in ("logs_nt", "reference_nt", "entropy_nt", "values_nt"):
            setattr(self, name, np.zeros(self.ids_nt.shape))

    @property
    def real_n(self) -> np.ndarray:
        """Which rows are episodes."""
        return np.asarray(self.written_nt.any(axis=1))

    @property
    def lengths_n(self) -> np.ndarray:
        """Written tokens of each row."""
        return np.asarray(self.written_nt.sum(axis=1))

    def tensors(self, rows: np.ndarray | slice, device: torch.device) -> dict[str, torch.Tensor]:
        """`input_ids`, `attention_mask` and `written` of some rows, without columns that are padding in all of them."""
        width = max(2, int(self.mask_nt[rows].sum(axis=1).max()))
        arrays = {"input_ids": self.ids_nt, "attention_mask": self.mask_nt, "written": self.written_nt}
        return {name: torch.from_numpy(array[rows, :width].copy()).to(device) for name, array in arrays.items()}

    def column(self, name: str, rows: np.ndarray | slice, device: torch.device) -> torch.Tensor:
        """[m] an array of the written tokens of some rows, in the order of a pass."""
        return of_written(getattr(self, name)[rows], self.written_nt[rows], device)


def of_written(values_nt: np.ndarray, written_nt: np.ndarray, device: torch.device) -> torch.Tensor:
    """[m] single precision: the values of written tokens."""
    return torch.from_numpy(values_nt[written_nt].astype(np.float32)).to(device)


def lay(prompts: Sequence[np.ndarray], answers: Sequence[np.ndarray], *, separator: int, pad: int) -> Episodes:
    """Episodes of which no network has said anything; one row of padding where there is no prompt."""
    sizes = [len(prompt) + len(answer) for prompt, answer in zip(prompts, answers, strict=True)]
    ids_nt = np.full((max(1, len(sizes)), max(sizes, default=PADDING_TOKENS)), pad, np.int64)
    mask_nt, written_nt = np.zeros_like(ids_nt), np.zeros(ids_nt.shape, np.bool_)
    ended_n = np.zeros(len(ids_nt), np.bool_)
    if not sizes:
        mask_nt[:] = 1
    for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        ids_nt[row, : sizes[row]] = np.concatenate([prompt, answer])
        mask_nt[row, : sizes[row]], written_nt[row, len(prompt) : sizes[row]] = 1, True
        ended_n[row] = answer[-1] == separator
    return Episodes(
        ids_nt=ids_nt, mask_nt=mask_nt, written_nt=written_nt, ended_n=ended_n, scores_n=np.zeros(len(ids_nt))
    )


@torch.no_grad()
def judge(
    episodes: Episodes, policy: Any, judges: Judges, *, banned: Sequence[int], rows: int, precision: str,
    with_values: bool = True,
) -> None:  # fmt: skip
    """Fill in what the networks say, `rows` sequences a pass; values where the policy has a value model.

    Modes stay as they are: no network has dropout.
    """
    device = next(policy.parameters()).device
    banned_b = torch.tensor(banned, dtype=torch.long, device=device)
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        for first in range(0, len(episodes.ids_nt), rows):
            part = slice(first, first + rows)
            written_nt, batch = episodes.written_nt[part], episodes.tensors(part, device)
            sequences = (batch["input_ids"], batch["attention_mask"], batch["written"])
            logs_m, logits_mv = actor_critic.written_logs(policy, *sequences, banned_b)
            said = {
                "logs_nt": logs_m,
                "entropy_nt": torch.special.entr(logits_mv.exp()).sum(dim=-1),
                "reference_nt": actor_critic.written_logs(judges.reference, *sequences, banned_b)[0],
            }
            if with_values:
                said["values_nt"] = actor_critic.values(policy.critic, *sequences, shift=judges.shift)
            for name, values_m in said.items():
                getattr(episodes, name)[part][written_nt] = values_m.cpu().double().numpy()
            episodes.scores_n[part] = _scores(episodes, part, judges, device)


def _scores(episodes: Episodes, part: slice, judges: Judges, device: torch.device) -> np.ndarray:
    """[n] scores. The reward model reads at the separator: an answer without an end gets one for it."""
    ids_nt = np.pad(episodes.ids_nt[part], ((0, 0), (0, 1)), constant_values=judges.pad)
    mask_nt = np.pad(episodes.mask_nt[part], ((0, 0), (0, 1)))
    open_n = np.flatnonzero(~episodes.ended_n[part])
    ends_n = mask_nt.sum(axis=1)
    ids_nt[open_n, ends_n[open_n]], mask_nt[open_n, ends_n[open_n]] = judges.separator, 1
    width = int(mask_nt.sum(axis=1).max())
    inputs = {"input_ids": ids_nt[:, :width], "attention_mask": mask_nt[:, :width]}
    given = judges.reward(**{name: torch.from_numpy(array).to(device) for name, array in inputs.items()}).logits
    scores: np.ndarray = (given[:, 0].cpu().double().numpy() - judges.shift) * episodes.real_n[part]
    return scores
