"""The objective `ppo`: prompts in, a policy out that a reward model likes better (Ouyang et al., 2022, section 3.5).

In: the questions of `ranking/*`, the model to start from, which is the reference, a reward model, and where given rows
of `packed/*`. Out: an `Objective`; the saved model is an ordinary causal one, checkpoints hold the value model, too.
Invariants: a step of the run is a batch of episodes and the optimizer steps that learn from it; episodes and rows of a
step depend on seed, step and number alone; reference and reward model are read anew from their folders when a run is
resumed, and never change; validation prompts are answered with the same seeds at each evaluation.
Cost: as `train.preferences.ppo`; an evaluation answers each prompt once.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from corpus.pipeline.errors import TokenizerError, TrainError
from corpus.pipeline.progress import SILENT, Progress
from corpus.pipeline.tokenizer import files as tokenizers
from corpus.pipeline.workspace.layout import OUTSIDE_REWARD, Workspace
from corpus.pipeline.workspace.ledger import FileDigest
from corpus.train import networks
from corpus.train.config import PTX_COEF, TrainConfig
from corpus.train.evaluation.metrics import spread
from corpus.train.model import architecture, load, sampling
from corpus.train.model.device import Device
from corpus.train.model.memory import step_memory, weight_bytes
from corpus.train.objective import PASS_TOKENS, Figure, Learner, Passes, Result
from corpus.train.preferences import actor_critic, card, pictures, ppo, scoring
from corpus.train.preferences import networks as heads
from corpus.train.preferences.episodes import Judges, lay, of_written
from corpus.train.preferences.prompts import PromptCollator, Prompts
from corpus.train.preferences.rollouts import Limits
from corpus.train.presets import LOGIT_BYTES, fixed_memory
from corpus.train.run import optimizer
from corpus.train.run.preferences import Rankings, rounded
from corpus.train.run.pretraining import PretrainingRows
from corpus.train.run.samples import Samples

TOKENS = 64
"""Most tokens of an answer, or half of the context where that is less."""
_BOUNDLESS = 1 << 30
"""Context of a model that does not say how much it reads."""
_MEASURED = -1
"""In place of a step: the seeds of evaluations."""
_ROLLOUT, _FORWARD = 1.0, 2 / 3
"""What rollouts, and the forward passes of four networks, take of a training pass of policy and value model."""


class PPOObjective(Rankings):
    """A policy that is rewarded for answers that a reward model scores highly, held to the model that it starts from.

    Raises:
        WorkspaceError, TokenizerError, DamageError, TrainError: as `Rankings`, and as `PretrainingRows`.
        ModelError: `reward` holds no reward model.
        TrainError: the context has no room for an answer, or FSDP is switched on.

    """

    noun = "prompts"
    takes_steps = True
    shown = ("reward", "kl")
    decides = Figure("rlhf_reward", larger_is_better=True)
    curve: Mapping[str, str] = {
        "figure": "rlhf_reward", "title": "reward less the weighted divergence", "loss": "PPO",
    }  # fmt: skip
    train: Prompts
    validation: Mapping[str, Prompts]
    test: Mapping[str, Prompts]
    collator: PromptCollator

    def __init__(self, config: TrainConfig, workspace: Workspace, progress: Progress = SILENT) -> None:
        if optimizer.is_fsdp():
            raise TrainError(
                "--objective ppo samples from a whole policy, and FSDP cuts it",
                hint="Start it with torchrun, or without a launcher.",
            )
        super().__init__(config, workspace, progress)
        self.init, self.reward = config.init or Path(), config.reward or Path()
        self._reward_config = scoring.configuration(self.reward, "--reward")
        own = self.reward / "tokenizer.json"
        if own.is_file() and not tokenizers.are_equal(own, self.tokenizer / "tokenizer.json"):
            raise TokenizerError(
                f"{own} and {self.tokenizer / 'tokenizer.json'} are different tokenizers",
                hint="Give --reward a run in the same workspace as --init.",
            )
        self._take_prompts()
        self.limits = self._limits()
        self.seq_length = self._longest + self.limits.tokens
        self.shape = replace(self.shape, seq_length=self.seq_length)
        self.pretraining = PretrainingRows(config, workspace, progress) if config.ptx_datasets else None
        self._describe(workspace)
        self.judges: Any = None
        """The networks that do not learn, once `network` made them."""
        self._passes = self.alone()
        self._logged: list[dict[str, float]] = []

    def _take_prompts(self) -> None:
        """Put prompts in the place of rankings."""

        def prompts(rankings: Any) -> Prompts:
            return Prompts(rankings, separator=self.shape.separator, begin=self.config.prompt_tokens)

        self.train = prompts(self.train)
        self.validation = {name: prompts(items) for name, items in self.validation.items()}
        self.test = {name: prompts(items) for name, items in self.test.items()}
        self.most_sequences, self.collator = 1, PromptCollator()

    def _limits(self) -> Limits:
        """What an answer may hold: the context of policy and reward model decides. Longer prompts are left out.

        Raises:
            TrainError: every training prompt leaves too little of it.

        """
        context, scored = (load.context_in(each) for each in (architecture.read(self.init), self._reward_config))
        most = min(context or _BOUNDLESS, (scored or _BOUNDLESS) - 1)  # an answer without an end is scored with one
        asked, shortest = self.config.max_new_tokens, int(self.train.lengths.min())
        tokens = asked or max(1, min(TOKENS, most // 2))
        self._keep(most - tokens)
        if not len(self.train):
            beside, room = f" and answers of {asked:,}" if asked else "", most - shortest
            raise TrainError(
                f"prompts of {shortest:,} tokens and more{beside} do not fit into the {most:,} that --init and "
                "--reward read",
                hint=f"Give --max-new-tokens {room} or fewer."
                if room > 0
                else f"Run `corpus pack --form ranking --seq-length {most}` first.",
            )
        vocabulary = tokenizers.load(self.tokenizer)
        special = [token for token, added in vocabulary.get_added_tokens_decoder().items() if added.special]
        separator, rows = self.shape.separator, self.shape.vocab_size
        banned = sampling.banned(vocabulary.get_vocab().values(), special, separator=separator, rows=rows)
        return Limits(separator=separator, banned=tuple(banned), tokens=tokens, context=most)

    def _keep(self, most: int) -> None:
        """Leave out the prompts of more than `most` tokens, and the datasets without any other."""
        ends = np.cumsum([*self.rows.values()])
        held_out = (*self.validation.values(), *self.test.values())
        self._left_out = sum(prompts.keep(most) for prompts in (self.train, *held_out))
        counts = np.diff(np.searchsorted(self.train.numbers, ends), prepend=0).tolist()
        self.rows = {name: count for name, count in zip(self.rows, counts, strict=True) if count}
        self.validation = {name: prompts for name, prompts in self.validation.items() if len(prompts)}
        self.test = {name: prompts for name, prompts in self.test.items() if len(prompts)}
        self.tokens = self.train.lengths
        self.lengths = None  # episodes are drawn in the order of their prompts
        self._longest = max(int(prompts.lengths.max(initial=0)) for prompts in (self.train, *held_out))

    def _describe(self, workspace: Workspace) -> None:
        """Settings and inputs of the ledger, and what a step costs."""
        config = self.config
        beside = self.pretraining
        self.how = ppo.Settings(
            kl_coef=config.kl_coef, missing_end_penalty=config.missing_end_penalty, inner_epochs=config.inner_epochs,
            minibatches=config.minibatches, ptx_coef=(config.ptx_coef or PTX_COEF) if beside else 0.0,
            seed=config.seed,
        )  # fmt: skip
        named = asdict(self.how)
        del named["seed"]
        rows = {
            "ptx_datasets": sorted(config.ptx_datasets), "ptx_rows": config.ptx_rows,
            "document_mask": config.document_mask,
        } if beside else {}  # fmt: skip
        self.settings = dict(self.settings) | named | rows | {
            "seq_length": self.seq_length, "max_new_tokens": self.limits.tokens, "prompt_tokens": config.prompt_tokens,
            "chat": self.train.has_questions,
        }  # fmt: skip
        own = [
            FileDigest(f"{OUTSIDE_REWARD}{path.name}", path.stat().st_size, workspace.digest(path))
            for path in load.files(self.reward, "--reward", scores=True)
        ]
        there = {entry.path for entry in self.inputs}
        self.inputs = [
            *self.inputs,
            *own,
            *(each for each in (beside.inputs if beside else ()) if each.path not in there),
        ]
        ptx = config.ptx_rows * beside.seq_length / self.row_tokens / 2 if beside else 0.0
        self.work = _ROLLOUT + _FORWARD + config.inner_epochs * (1 + ptx)

    @property
    def row_tokens(self) -> float:
        """The mean of the prompts, and an answer of full length."""
        return float(self.tokens.mean()) + self.limits.tokens

    def most_rows(self, device: Device) -> int:
        """As many as hold the tokens of the useful packed rows."""
        return max(1, int(device.most_rows * PASS_TOKENS / self.seq_length))

    # --- the networks -------------------------------------------------------------------------------------------------

    def network(self) -> Any:
        """The model that the run starts from, with a value model that begins as the reward model."""
        causal, reward = self.causal(), scoring.RewardModel(self.reward, flag="--reward")
        critic, reference = copy.deepcopy(reward.network), copy.deepcopy(causal).eval()
        for network in (reference, reward.network):
            network.requires_grad_(requires_grad=False)
        self.judges = Judges(
            reference=reference, reward=reward.network, shift=reward.shift, separator=self.shape.separator,
            pad=self.shape.pad,
        )  # fmt: skip
        self.made = actor_critic.policy(causal, critic, banned=self.limits.banned, shift=reward.shift)
        return self.made

    def sketch(self) -> Any:
        """The same without weights."""
        causal = networks.sketch(self.config, self.shape)
        critic = heads.reward_class(self._reward_config)(self._reward_config)
        return actor_critic.policy(causal, critic, banned=self.limits.banned, shift=0.0)

    def check(self, model: Any) -> None:
        """Refuse a network whose documents of a row would see each other, where it learns from rows."""
        if self.pretraining is not None:
            self.pretraining.objective.check(model)

    def begin(self, folder: Path, model: Any, passes: Passes) -> None:
        """Bring the networks that judge to the device."""
        del folder
        self._passes = replace(passes, rank=0, world=1)
        device = next(model.parameters()).device
        self.judges.reference.to(device)
        self.judges.reward.to(device)

    def fixed_parts(self, model: Any, *, precision: str) -> Mapping[str, int]:
        """Policy and value model with gradients and optimizer; the others in single precision, as autocast reads them,
        so that a policy with the reference's weights says exactly what the reference says.
        """
        value = model.critic.num_parameters()
        policy = model.num_parameters() - value
        return {
            "policy": fixed_memory(policy, precision), "value model": fixed_memory(value, precision),
            "reference": weight_bytes(policy), "reward model": weight_bytes(value),
        }  # fmt: skip

    def memory(self, model: Any, *, precision: str, checkpointing: bool, one_moment: int) -> tuple[int, int]:
        """Those of four networks; of an item the passes that learn, which are larger than the rollout."""
        del one_moment
        length = max(self.seq_length, self.pretraining.seq_length if self.pretraining else 0)
        parts = [
            step_memory(network, seq_length=length, precision=precision, checkpointing=checkpointing)[1]
            for network in (model, model.critic)
        ]
        logits = length * model.critic.config.vocab_size * LOGIT_BYTES  # of which the value model has none
        return sum(self.fixed_parts(model, precision=precision).values()), sum(parts) - logits

    def timed(self, rows: Sequence[int] | np.ndarray) -> Mapping[str, Any]:
        """Prompts with answers of full length, of separators."""
        prompts = self.train.__getitems__(rows)
        answers = [np.full(self.limits.tokens, self.shape.separator) for _ in prompts]
        episodes = lay(prompts, answers, separator=self.shape.separator, pad=self.shape.pad)
        cpu = torch.device("cpu")
        nothing = of_written(episodes.values_nt, episodes.written_nt, cpu)
        return episodes.tensors(slice(None), cpu) | dict.fromkeys(
            ("logs", "values", "advantages", "returns"), nothing
        ) | {"divisor": float(len(nothing))}  # fmt: skip

    # --- a step -------------------------------------------------------------------------------------------------------

    def learn(self, learner: Learner, inputs: Mapping[str, Any]) -> float:
        """Answer the prompts and learn from the answers."""
        prompts: Sequence[np.ndarray] = inputs["prompts"]
        loss, found = ppo.learn(learner, self.made, self.judges, prompts, self.limits, self.how, self.pretraining)
        self._logged.append(found)
        return loss

    def step_figures(self) -> Mapping[str, float]:
        """Means over the steps since the last call."""
        names = self._logged[0] if self._logged else ()
        found = {name: float(np.mean([each[name] for each in self._logged])) for name in names}
        self._logged.clear()
        return rounded(found)

    def saved(self, model: Any) -> contextlib.AbstractContextManager[Any]:
        """In it the policy is without its value model."""
        return _without_critic(model)

    # --- measuring ----------------------------------------------------------------------------------------------------

    def evaluate(self, model: Any, passes: Passes) -> dict[str, Any]:
        """The figures of answers to the validation prompts, and the mean of what PPO maximizes."""
        found: dict[str, Any] = {}
        for name, prompts in self.validation.items():
            own = self.measured(model, prompts, passes)
            found |= {f"{name}/{figure}": value for figure, value in own.items()}
        deciding = [found[f"{name}/{self.decides.name}"] for name in self.validation]
        return found | {self.decides.name: float(np.mean(deciding))} if deciding else {}

    def measured(self, model: Any, prompts: Prompts, passes: Passes) -> dict[str, Any]:
        """Means over the answers to one dataset's prompts; every process must call it."""
        chosen = spread(len(prompts), self.config.eval_rows or 0)
        own = np.arange(len(chosen))[passes.rank :: passes.world]
        seeds = [sampling.row_seed(self.config.seed, _MEASURED, place) for place in own.tolist()]
        asked = prompts.__getitems__(chosen[own])
        episodes, _ = ppo.played(model, self.judges, asked, seeds, self.limits, passes, with_values=False)
        values = ppo.outcome(episodes, self.how)
        sums = np.array([values[name].sum() for name in values])
        sums = passes.add(sums) if passes.world > 1 else sums
        found = dict(zip(values, (sums / len(chosen)).tolist(), strict=True))
        found[self.decides.name] = found["reward"] - self.how.kl_coef * found["kl"]
        return rounded(found) | {"prompts": len(chosen)}

    def samples(self, model: Any) -> Iterator[Mapping[str, str]]:
        """Answers to the prompts, or continuations where the prompts of the run are no questions."""
        samples = Samples(
            self.config.sample_prompts, self.tokenizer, chat=self.train.has_questions, context=self.seq_length
        )
        return samples.write(model, self.config.seed)

    # --- what is written ----------------------------------------------------------------------------------------------

    def counts(self) -> Mapping[str, Any]:
        """Parameters of the policy, prompts by split, the figures of the test prompts, and those of the reference, all
        in the precision of the run's evaluations.
        """
        splits: Mapping[str, list[Prompts]] = {
            "train": [self.train], "validation": [*self.validation.values()], "test": [*self.test.values()],
        }  # fmt: skip
        self.progress.say("test prompts, and answers of the reference ...")
        passes, reference = self._passes, self.judges.reference
        return {
            "parameters": self.made.num_parameters() - self.made.critic.num_parameters(),
            "prompts": {split: sum(map(len, every)) for split, every in splits.items() if every},
            "left_out": self._left_out,
            "test": {name: self.measured(self.made, prompts, passes) for name, prompts in self.test.items()},
            "reference": {
                split: {name: self.measured(reference, prompts, passes) for name, prompts in own.items()}
                for split, own in (("validation", self.validation), ("test", self.test))
            },
        }

    def notes(self) -> Sequence[str]:
        """How many parameters are the value model's, and whether the context cuts answers short."""
        said = []
        if self.made is not None:
            said.append(f"{self.made.critic.num_parameters():,} of the parameters are the value model's")
        if self._left_out:
            said.append(
                f"{self._left_out:,} prompts are left out: the context of {self.limits.context:,} tokens has no room "
                f"for an answer of {self.limits.tokens:,} after them"
            )
        return said

    def documents(self, result: Result) -> Mapping[str, bytes]:
        """The model card, and the figures of the steps as a picture."""
        return {"README.md": card.ppo(result).encode(), "ppo.png": pictures.ppo(result.history)}


@contextlib.contextmanager
def _without_critic(policy: Any) -> Iterator[Any]:
    critic = policy.critic
    del policy.critic
    try:
        yield policy
    finally:
        policy.critic = critic
