"""The settings of a training run, as one frozen value.

In: flags or keyword arguments. Out: a checked `TrainConfig`. Imports no torch, so a wrong flag is refused at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

from corpus.train.model import choices
from corpus.train.presets import PRESETS, Preset
from corpus.train.settings import flag_of, weighted

OBJECTIVES = ("text", "sft", "task", "reward", "dpo", "ppo")
PREFERENCES = ("reward", "dpo", "ppo")
"""Objectives that learn from rankings."""
BETA = 0.1
"""Rafailov et al., 2023, appendix B."""
KL_COEF = 0.02
"""Ouyang et al., 2022, section C.4."""
PTX_COEF = 27.8
"""Ouyang et al., 2022, section C.4."""
AUX_LM = 0.5
"""Radford et al., 2018, section 4.1."""
NEW_MODEL = "gpt2-small"
"""Preset of a new model."""
OPTIMIZERS = ("adamw", "muon")
SCHEDULES = ("cosine", "wsd", "linear", "constant")
DECAY_SHARE = 0.2
"""Share of the run in which the learning rate of `wsd` decays (Hägele et al., 2024)."""
SHUFFLES = ("full", "block")
SHUFFLE_BLOCK = 8
"""Shards of a block."""
TRACKERS = ("tensorboard", "wandb", "swanlab", "mlflow")
_LONGEST_NAME = 200
_PPO = (
    "reward", "kl_coef", "missing_end_penalty", "max_new_tokens", "prompt_tokens", "inner_epochs", "minibatches",
    "ptx_datasets", "ptx_coef", "ptx_rows",
)  # fmt: skip
"""Settings of the objective `ppo` alone."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """How a model is trained. None stands for a default from preset, data or device."""

    datasets: tuple[str, ...] = ()
    """Packed datasets to train on; all packed ones when empty. `NAME=WEIGHT` sets a share of the tokens; either all
    datasets have weights or no dataset. Without weights each row is seen equally often."""
    max_repeats: float | None = None
    """Most epochs of a dataset. When None: 4 with weights (Muennighoff et al., 2023), no limit without."""
    objective: str = "text"
    """`text` predicts every token of packed documents; `sft` only the answers of chat rows; `task` the labels of a
    task's items; `reward` a score that ranks the answers to a question; `dpo` makes better answers likelier than
    worse ones; `ppo` answers to which a reward model gives a high score."""
    task: str = ""
    """With the objective `task`: name of a built-in task, or path of a task file."""
    data: Path | None = None
    """File or folder of the task's items, where the task does not bring them."""
    aux_lm: float = AUX_LM
    """Weight of the loss of predicting the item's own tokens beside that of its label (Radford et al., 2018); 0 leaves
    it out."""
    one_order: bool = False
    """Whether a pair of texts is read as it stands alone, in place of both orders; for similarity."""
    delimiter: bool = True
    """Whether a delimiter stands between the texts of an item."""
    beta: float = BETA
    """With the objective `dpo`: how strongly the policy is held to the model that it starts from."""
    reward: Path | None = None
    """With the objective `ppo`: folder of the reward model. So with all settings up to `ptx_rows`."""
    kl_coef: float = KL_COEF
    """How strongly each token is held to the model that the policy starts from."""
    missing_end_penalty: float = 1.0
    """What an answer without an end loses of its score."""
    max_new_tokens: int | None = None
    """Most tokens of an answer. When None: 64, or half of the context where that is less."""
    prompt_tokens: int = 8
    """First tokens of the best answer that are the prompt where a ranking has no question."""
    inner_epochs: int = 2
    """How often each answer is learnt from in its step."""
    minibatches: int = 1
    """Optimizer steps of an inner epoch."""
    ptx_datasets: tuple[str, ...] = ()
    """Packed datasets whose rows are learnt beside the answers (PPO-ptx)."""
    ptx_coef: float | None = None
    """Weight of the loss on these rows. When None: 27.8."""
    ptx_rows: int = 1
    """Rows of them for each answer and inner epoch."""
    model: str = ""
    """Preset: the size of a new model, gpt2-small when empty. It also decides the default batch size, learning rate and
    warm-up; with `init` or `architecture` these follow that model when it is empty (`run.defaults`)."""
    architecture: Path | None = None
    """A config.json, or a folder that holds one: the shape of a new model, in place of a preset's."""
    init: Path | None = None
    """Folder of a model to start from, in place of random weights."""
    run: str = ""
    """Name of the run's folder under `models/`; preset and six digits of the fingerprint when empty."""
    epochs: float | None = None
    """How often each row is seen; unused with `max_steps`. When None: 1; with `init` and the objective `sft` 3,
    with the objective `task` 3."""
    max_steps: int | None = None
    """Optimizer steps; from `epochs` when None."""
    batch_size: int | None = None
    """Rows of an optimizer step, over all devices and accumulated passes. When None: the preset's, with `init` and the
    objective `sft` at most 32, with the objectives `task`, `reward`, `dpo` and `ppo` 32 items."""
    micro_batch_size: int | None = None
    """Most rows in one forward pass of one device; what fits its memory when None. Sets gradient accumulation."""
    optimizer: str | None = None
    """`adamw`, or `muon`: Muon on the matrices of the blocks, AdamW on embeddings, head, norms and biases. When None:
    `muon` for a new model of a `llama` preset, else `adamw`."""
    learning_rate: float | None = None
    """Peak of the schedule. When None: the preset's for the optimizer; a share of AdamW's with `init` and the objective
    `sft`, and with the objectives `task`, `reward`, `dpo` and `ppo` (`run.defaults`)."""
    adam_learning_rate: float | None = None
    """AdamW's peak with the optimizer `muon`; `learning_rate` when None."""
    schedule: str | None = None
    """What follows the warm-up: `cosine`, `linear`, `constant`, or `wsd`: constant until the last `decay_share`. When
    None: `cosine`, with the objective `task` `linear`, for a new model of a `llama` preset with Muon `wsd`."""
    decay_share: float | None = None
    """Share of the run in which the learning rate decays with the schedule `wsd`. When None: 0.2, 0.4 where `wsd` is
    the preset's own."""
    warmup: float | None = None
    """Warm-up of the learning rate, before its decay: from 1 on in steps, below 1 as a share of the run. When
    None: a twentieth of the run, but no more than in the preset's paper; with `init` and the objective `sft` 0.03, with
    the objective `task` 0.002, with `reward` 0.03, with `dpo` and `ppo` 0.1."""
    warmup_tokens: int | None = None
    """Warm-up in tokens, padding included, in place of `warmup`."""
    decay_to: float | None = None
    """Share of the learning rate at the end of the run. When None: the preset's, with the objective `task` 0."""
    ramp_from: int | None = None
    """Rows of the first step of a batch-size ramp to `batch_size` (Brown et al., 2020)."""
    ramp_tokens: int | None = None
    """Tokens of the ramp, padding included."""
    weight_decay: float = 0.1
    """On matrices only, Muon's as well (Brown et al., 2020)."""
    beta1: float = 0.9
    """AdamW's decay of the first moment."""
    beta2: float = 0.95
    """AdamW's decay of the second moment (Brown et al., 2020)."""
    clip: float = 1.0
    """Largest gradient norm; 0 switches clipping off."""
    dropout: float | None = None
    """Share of units dropped; the preset's when None, the model's own with `init`. With the objective `task` it is also
    that of the linear layer's input, 0.1 when None; with `reward` and `dpo` it is 0 when None, with `ppo` always."""
    seed: int = 1
    """Seed of the initial weights, of the order of the rows and of dropout."""
    document_mask: bool = True
    """Whether attention stays inside a document; without it, it covers the whole row before a token."""
    precision: str = "auto"
    """`fp32`, `bf16` (autocast; weights stay fp32), or `auto`: bf16 where the hardware computes in it."""
    device: str = "auto"
    """`cpu`, `cuda`, `mps`, `xpu`, or `auto`: the accelerator if there is one."""
    log_steps: int = 10
    """Steps between two training losses in `metrics.jsonl`."""
    eval_steps: int | None = None
    """Steps between two evaluations. When None: about ten in a run, and at most a twentieth of its time."""
    eval_rows: int | None = None
    """Most validation rows of a dataset in an evaluation, spread evenly over the split; 0 for all. When None: 128, with
    the objectives `task`, `reward` and `dpo` all, with `ppo` 64."""
    sample_prompts: tuple[str, ...] = ()
    """Prompts that are continued at each evaluation, into `samples.jsonl`; they do not affect the run."""
    eval_benchmark: str | None = None
    """Built-in task or task file that the model is asked about while it trains; it does not affect the run."""
    eval_benchmark_data: Path | None = None
    """File or folder of its items, where the task does not bring them."""
    eval_benchmark_every: int | None = None
    """Steps between two measurements; those between two evaluations when None."""
    eval_benchmark_limit: int | None = None
    """Most items, spread evenly; all when None."""
    early_stop: int | None = None
    """Consecutive evaluations without a better one that end the run; off when None. The mean of bits per character
    decides, of a task its metric."""
    save_steps: int | None = None
    """Steps between two checkpoints. When None: a tenth of the run, at most 500."""
    save_total_limit: int = 2
    """Number of newest checkpoints kept."""
    resume: bool = True
    """Whether an unfinished run resumes from its last checkpoint and a finished one is skipped."""
    gradient_checkpointing: bool = False
    """Whether activations are recomputed to save memory."""
    compile: bool = False
    """Whether the model goes through torch.compile."""
    rows: str = ""
    """A URL, or a path, below which `packed/` or `chat/` and `tokenizer/` lie as in a workspace; the workspace's own
    when empty. Rows are read through a cache on this machine's disk."""
    cache: Path | None = None
    """Folder of the cache. When None: `corpus` below $XDG_CACHE_HOME or ~/.cache."""
    cache_bytes: int | None = None
    """Most bytes of the cache; the disk's when None."""
    shuffle: str = "full"
    """`full`: an epoch is one permutation of all rows; `block`: shards are permuted and cut into blocks, and rows are
    permuted within a block. Remote rows are then fetched block by block, so the cache may be smaller than the rows."""
    shuffle_block: int | None = None
    """Shards of a block with the shuffle `block`; 8 when None."""
    workers: int | None = None
    """Processes that make batches. When None: 0 on a CPU, 2 beside an accelerator. The batches are the same."""
    report_to: tuple[str, ...] = ()
    """Experiment trackers that also get the figures, each an extra: `tensorboard` (event files in
    `models/<run>/tensorboard/`), `wandb`, `swanlab`, `mlflow`."""
    threads: int | None = None
    """CPU threads of the computation; torch's choice when None."""
    ddp_timeout: int = 1800
    """Seconds after which a process of torchrun that hears nothing of the others ends."""

    def __post_init__(self) -> None:
        """Raise a ValueError that names the flag."""
        if self.model and self.model not in PRESETS:
            raise ValueError(f"--model must be one of {', '.join(PRESETS)}, or a config.json, is {self.model}")
        if self.architecture and self.init:
            raise ValueError("--init has a shape of its own: --model must be a preset beside it, not a config.json")
        if self.run and (Path(self.run).name != self.run or self.run.startswith(".")):
            raise ValueError(f"--run must be a plain folder name, is {self.run}")
        if len(self.run.encode()) > _LONGEST_NAME:
            raise ValueError(f"--run must be at most {_LONGEST_NAME} bytes long, has {len(self.run.encode())}")
        for prompt in self.sample_prompts:
            try:
                prompt.encode()
            except UnicodeEncodeError as error:
                raise ValueError(f"--sample-prompt must be text, is {prompt!r}") from error
        choices.check(device=self.device, precision=self.precision)
        if self.objective not in OBJECTIVES:
            raise ValueError(f"--objective must be one of {', '.join(OBJECTIVES)}, is {self.objective}")
        if self.optimizer not in {None, *OPTIMIZERS}:
            raise ValueError(f"--optimizer must be one of {', '.join(OPTIMIZERS)}, is {self.optimizer}")
        if self.schedule is not None and self.schedule not in SCHEDULES:
            raise ValueError(f"--schedule must be one of {', '.join(SCHEDULES)}, is {self.schedule}")
        for tracker in self.report_to:
            if tracker not in TRACKERS:
                raise ValueError(f"--report-to must be one of {', '.join(TRACKERS)}, none, is {tracker}")
        self._check_task()
        self._check_preferences()
        self._check_ppo()
        self._check_benchmark()
        self._check_rows()
        self._check_mixture()
        self._check_counts()
        self._check_rates()
        self._check_schedule()

    def _check_task(self) -> None:
        is_task = self.objective == "task"
        if is_task and not self.task:
            raise ValueError("--objective task needs --task NAME, or the path of a task file")
        given = {
            "--task": bool(self.task), "--data": self.data is not None, "--aux-lm": self.aux_lm != AUX_LM,
            "--one-order": self.one_order, "--no-delimiter": not self.delimiter,
        }  # fmt: skip
        for flag in (flag for flag, is_given in given.items() if is_given and not is_task):
            raise ValueError(f"{flag} must stand with --objective task")
        others = {"--dataset": self.datasets, "--sample-prompt": self.sample_prompts, "--max-repeats": self.max_repeats}
        for flag in (flag for flag, value in others.items() if value and is_task):
            raise ValueError(f"{flag} must not stand with --objective task")

    def _check_preferences(self) -> None:
        if self.beta != BETA and self.objective != "dpo":
            raise ValueError("--beta must stand with --objective dpo")
        if self.objective == "dpo" and self.init is None:
            raise ValueError("--objective dpo needs --init RUN, the model that is its reference")
        if self.sample_prompts and self.objective == "reward":
            raise ValueError("--sample-prompt must not stand with --objective reward, whose model writes nothing")

    def _check_ppo(self) -> None:
        if self.objective != "ppo":
            defaults = {each.name: each.default for each in fields(self)}
            for name in (name for name in _PPO if getattr(self, name) != defaults[name]):
                raise ValueError(f"{flag_of(name)} must stand with --objective ppo")
            return
        if self.init is None or self.reward is None:
            lacking = "--init RUN, the model that is its reference" if self.init is None else "--reward RUN"
            raise ValueError(f"--objective ppo needs {lacking}")
        if self.dropout:
            raise ValueError("--dropout must be 0 with --objective ppo: the policy would not be what wrote the answers")
        if self.optimizer == "muon":
            raise ValueError("--optimizer must be adamw with --objective ppo")
        if not self.ptx_datasets and (self.ptx_coef is not None or self.ptx_rows != 1):
            raise ValueError("--ptx-coef and --ptx-rows must stand with --ptx-dataset")
        if len(set(self.ptx_datasets)) < len(self.ptx_datasets) or any("=" in name for name in self.ptx_datasets):
            raise ValueError("--ptx-dataset must name each dataset once, without a weight")

    def _check_benchmark(self) -> None:
        if self.eval_benchmark == "":
            raise ValueError("--eval-benchmark must be the name of a task, or the path of a task file")
        for name in ("eval_benchmark_data", "eval_benchmark_every", "eval_benchmark_limit"):
            if getattr(self, name) is not None and not self.eval_benchmark:
                raise ValueError(f"{flag_of(name)} must stand with --eval-benchmark")
        if self.eval_benchmark and self.objective in {"task", "reward"}:
            raise ValueError(f"--eval-benchmark must not stand with --objective {self.objective}")

    def _check_rows(self) -> None:
        if self.rows and self.objective not in {"text", "sft"}:
            raise ValueError(f"--rows must stand with --objective text or sft, not with {self.objective}")
        if not self.rows and (self.cache is not None or self.cache_bytes is not None):
            raise ValueError("--cache and --cache-bytes must stand with --rows")
        if self.shuffle not in SHUFFLES:
            raise ValueError(f"--shuffle must be one of {', '.join(SHUFFLES)}, is {self.shuffle}")
        if self.shuffle == "block" and self.objective not in {"text", "sft"}:
            raise ValueError(f"--shuffle block must stand with --objective text or sft, not with {self.objective}")
        if self.shuffle_block is not None and self.shuffle != "block":
            raise ValueError("--shuffle-block must stand with --shuffle block")

    def _check_mixture(self) -> None:
        weights = list(self.mixture.values())
        if len(weights) < len(self.datasets):
            raise ValueError("--dataset must name each dataset once")
        if None in weights and weights.count(None) < len(weights):
            raise ValueError("--dataset must have a weight for every dataset, or for no dataset")

    def _check_schedule(self) -> None:
        if self.adam_learning_rate is not None and self.optimizer != "muon" and not self.has_muon_preset:
            raise ValueError("--adam-learning-rate must stand with --optimizer muon; --learning-rate is AdamW's alone")
        if (
            self.decay_share is not None
            and self.schedule != "wsd"
            and not (self.schedule is None and self.has_muon_preset)
        ):
            raise ValueError(f"--decay-share must stand with --schedule wsd, not with {self.schedule or SCHEDULES[0]}")
        if self.decay_to is not None and self.schedule == "constant":
            raise ValueError("--decay-to must not stand with --schedule constant, which never decays")
        if self.warmup is not None and self.warmup_tokens is not None:
            raise ValueError("--warmup and --warmup-tokens must not both be given")
        if (self.ramp_from is None) != (self.ramp_tokens is None):
            raise ValueError("--ramp-from and --ramp-tokens must be given together")
        most = self.batch_size or (self.preset.batch_size if self.is_preset else None)  # else it is not known yet
        if self.ramp_from is not None and most is not None and self.ramp_from > most:
            raise ValueError(f"--ramp-from must be at most the batch size, is {self.ramp_from}")

    def _check_counts(self) -> None:
        least = {
            "max_steps": 1, "batch_size": 1, "micro_batch_size": 1, "ramp_from": 1, "ramp_tokens": 1,
            "warmup_tokens": 0, "log_steps": 1, "eval_steps": 1, "eval_rows": 0, "early_stop": 1,
            "eval_benchmark_every": 1, "eval_benchmark_limit": 1, "save_steps": 1,
            "save_total_limit": 1, "seed": 0, "cache_bytes": 1, "shuffle_block": 1, "workers": 0, "threads": 1,
            "max_new_tokens": 1,
            "ddp_timeout": 1, "prompt_tokens": 0, "inner_epochs": 1, "minibatches": 1, "ptx_rows": 1,
        }  # fmt: skip
        for name, smallest in least.items():
            value = getattr(self, name)
            if value is not None and value < smallest:
                raise ValueError(f"{flag_of(name)} must be at least {smallest}, is {value}")

    def _check_rates(self) -> None:
        ranges: tuple[tuple[tuple[str, ...], Callable[[float], bool], str], ...] = (
            (
                ("epochs", "learning_rate", "adam_learning_rate", "max_repeats", "beta", "ptx_coef"),
                lambda value: 0 < value < math.inf,
                "be greater than 0",
            ),
            (
                ("warmup", "weight_decay", "clip", "aux_lm", "kl_coef", "missing_end_penalty"),
                lambda value: 0 <= value < math.inf,
                "not be negative",
            ),
            (("beta1", "beta2", "dropout"), lambda value: 0 <= value < 1, "be at least 0 and less than 1"),
            (("decay_to",), lambda value: 0 <= value <= 1, "be between 0 and 1"),
            (("decay_share",), lambda value: 0 < value <= 1, "be greater than 0 and at most 1"),
        )
        for names, is_inside, rule in ranges:
            for name in names:
                value = getattr(self, name)
                if value is not None and not is_inside(value):
                    raise ValueError(f"{flag_of(name)} must {rule}, is {value}")

    @property
    def mixture(self) -> dict[str, float | None]:
        """Weights by dataset, as `datasets` gives them; None without one."""
        return dict(map(weighted, self.datasets))

    @property
    def is_weighted(self) -> bool:
        """Whether the datasets have weights."""
        return any(weight is not None for weight in self.mixture.values())

    @property
    def is_preset(self) -> bool:
        """Whether the model is a new one of a preset's shape."""
        return self.init is None and self.architecture is None

    @property
    def has_muon_preset(self) -> bool:
        """Whether a new model is pre-trained whose preset has Muon, and no other optimizer is asked for."""
        is_new = self.is_preset and self.objective == "text" and self.preset.muon_rate is not None
        return is_new and self.optimizer in {None, "muon"}

    @property
    def preset(self) -> Preset:
        """The preset that `model` names, or that of a new model."""
        return PRESETS[self.model or NEW_MODEL]
