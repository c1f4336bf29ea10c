"""The reward model of `corpus sample --best-of N --reward RM`, as what samples needs it.

In: the folders of a reward model and of the model that is sampled. Out: a `Scorer` for `corpus.generate.best_of`,
`bulk` and `chat`. The two wings meet here because neither needs the other: `generate` chooses by a function that scores
ids, `train` reads answers, whoever wrote them.
Invariant: both models have one tokenizer.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from corpus.pipeline.errors import DeviceError, TokenizerError
from corpus.pipeline.tokenizer.files import are_equal

if TYPE_CHECKING:
    from corpus.generate.best_of import Scorer

_TOKENIZER = "tokenizer.json"


def scorer(reward: Path, model: Path, *, device: str = "auto", precision: str = "auto") -> Scorer:
    """The reward model of the folder `reward`, to score samples of the model in the folder `model`.

    Raises:
        ModelError: `reward` holds no reward model, or not a whole one.
        TokenizerError: the two have different tokenizers.
        DeviceError: the machine has no such device, or the device is out of memory.

    """
    from corpus.generate.best_of import Scorer  # torch
    from corpus.train.model import device as devices
    from corpus.train.objective import PASS_TOKENS
    from corpus.train.preferences.scoring import RewardModel

    chosen = devices.choose(device, precision)
    with devices.memory_errors(_out_of_memory()):
        judge = RewardModel(reward, flag="--reward", device=chosen.kind)
    if not are_equal(model / _TOKENIZER, reward / _TOKENIZER):
        raise TokenizerError(
            f"{model} and {reward} have different tokenizers",
            hint="Give --reward a model that was trained in the workspace of --model.",
        )

    def score(questions: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]) -> list[float | None]:
        with devices.memory_errors(_out_of_memory()):
            return judge.scores_of_ids(
                questions, answers, tokens=chosen.most_rows * PASS_TOKENS, precision=chosen.precision
            )

    return Scorer(folder=reward, score=score)


def _out_of_memory() -> DeviceError:
    return DeviceError(
        "the device has too little memory for model and reward model",
        hint="Type --device cpu, or a smaller --max-new-tokens.",
    )
