"""The rows of `packed/*` that PPO learns beside its episodes, so that the policy keeps what pre-training taught it.

In: the configuration of a run. Out: batches of rows, as the objective `text` reads them.
Invariants: which rows belong to an episode depends on the seed, the inner epoch of the run and the number of the
episode; each row comes once before any comes again.
Cost: as `packed_rows`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from corpus.pipeline.errors import TrainError
from corpus.pipeline.progress import Progress
from corpus.pipeline.workspace.layout import Workspace
from corpus.train.config import TrainConfig
from corpus.train.data.sampler import permutation
from corpus.train.model import architecture, load
from corpus.train.run.packed_rows import PackedRows

_STREAM = 1 << 17
"""Stream of random numbers that orders the rows."""


class PretrainingRows:
    """Rows of packed datasets, a fixed number for each episode.

    Raises:
        WorkspaceError, TokenizerError, DamageError, TrainError: as `PackedRows`.
        TrainError: the rows are longer than the context of the model.

    """

    def __init__(self, config: TrainConfig, workspace: Workspace, progress: Progress) -> None:
        own = TrainConfig(
            datasets=config.ptx_datasets, init=config.init, document_mask=config.document_mask, dropout=0.0
        )
        self.objective = PackedRows(own, workspace, progress)
        self.inputs, self.seq_length = self.objective.inputs, self.objective.seq_length
        context = load.context_in(architecture.read(config.init)) if config.init else None
        if context is not None and context < self.seq_length:
            raise TrainError(
                f"{config.init} takes {context:,} tokens at once, the rows of {config.ptx_datasets[0]} have "
                f"{self.seq_length:,}",
                hint=f"Run `corpus pack --seq-length {context}` first.",
            )
        self._seed, self._an_episode = config.seed, config.ptx_rows
        self._a_step = (config.batch_size or 1) * config.ptx_rows
        self._epoch: tuple[int, np.ndarray] | None = None

    def batches(self, epoch: int, episodes: np.ndarray, rows: int) -> Sequence[Mapping[str, Any]]:
        """Batches of at most `rows` rows: those of these episodes of a step, in one of the run's inner epochs."""
        places = epoch * self._a_step + episodes[:, None] * self._an_episode + np.arange(self._an_episode)
        numbers = self._rows(places.ravel())
        parts = [numbers[first : first + rows] for first in range(0, len(numbers), rows)]
        return [self.objective.collator(self.objective.train.__getitems__(part)) for part in parts]

    def _rows(self, places: np.ndarray) -> np.ndarray:
        """Numbers of the rows at these places of the concatenated epochs over all rows."""
        count = len(self.objective.train)
        epochs, within = np.divmod(places, count)
        found = np.zeros_like(places)
        for epoch in np.unique(epochs).tolist():
            if self._epoch is None or self._epoch[0] != epoch:
                self._epoch = epoch, permutation(count, self._seed, epoch, _STREAM)
            found[epochs == epoch] = self._epoch[1][within[epochs == epoch]]
        return found
