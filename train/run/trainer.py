"""A subclass of Hugging Face's Trainer with its own row order, evaluation and checkpointing; the loop is Trainer's.

In: a `RunContext` and a model. Out: checkpoints and `metrics.jsonl` in the run's folder, and the trained model.
Invariants: the Trainer sees the run as one epoch whose batch sampler starts at the next step, so resuming reads no
row twice; all steps have the same number of passes; the loss of a checkpoint's step is always logged, so the curve of a
resumed run has the same points.
Cost: under a hundredth of a step beyond the passes of the model.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.utils.logging import disable_progress_bar

from corpus.pipeline.errors import TrainError
from corpus.train.benchmarks.during import BenchmarkCallback, Curve
from corpus.train.config import DECAY_SHARE
from corpus.train.data.mixture import delivered
from corpus.train.data.schedule import rate
from corpus.train.objective import Passes
from corpus.train.run import optimizer
from corpus.train.run.context import RunContext
from corpus.train.run.folder import saving_errors
from corpus.train.run.learner import TrainerLearner


class CorpusTrainer(Trainer):  # type: ignore[misc]  # transformers is untyped to us
    """Hugging Face's Trainer over the items of an objective."""

    control: Any

    def __init__(self, context: RunContext, model: Any, args: TrainingArguments) -> None:
        objective = context.plan.objective
        self.context = context
        context.order.first_step = lambda: self.state.global_step
        disable_progress_bar()
        logging.getLogger("transformers.trainer_utils").setLevel(logging.ERROR)  # it warns of changed save_steps
        super().__init__(
            model=model,
            args=args,
            data_collator=objective.collator,
            train_dataset=objective.train,
            eval_dataset=dict(objective.validation) or None,
            callbacks=[_StepCallback(self), *context.trackers],
        )
        self.remove_callback(PrinterCallback)
        model.config.use_cache = True  # batches switch it off; the saved model must generate with it
        self._counted_steps = self._tokens_seen = 0
        self._figures = ""

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Batches in the run's order; a separate generator keeps the random state of a resumed run unchanged."""
        return DataLoader(
            self.train_dataset,
            batch_sampler=self.context.order,
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory,
            generator=torch.Generator(),
        )

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """AdamW as the Trainer makes it, or Muon beside it."""
        settings, args = self.context.plan.settings, self.args
        if self.context.config.optimizer == "adamw":
            made: torch.optim.Optimizer = super().create_optimizer(model)
            return made
        model = model or self.model
        both = optimizer.make(
            model, set(self.get_decay_parameter_names(model)), rate=args.learning_rate,
            adam_rate=settings["adam_learning_rate"], weight_decay=args.weight_decay,
            betas=(args.adam_beta1, args.adam_beta2),
        )  # fmt: skip
        self.optimizer = both
        return both

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> LambdaLR:  # noqa: ARG002  # the Trainer's signature
        """The learning rate of each step, from `schedule.rate`."""
        plan, config = self.context.plan, self.context.config
        share = partial(
            rate, warmup=plan.warmup_steps, steps=plan.steps, decay_to=plan.settings["decay_to"],
            schedule=config.schedule or "cosine", decay_share=config.decay_share or DECAY_SHARE,
        )  # fmt: skip
        self.lr_scheduler = LambdaLR(optimizer or self.optimizer, share)
        self._created_lr_scheduler = True
        return self.lr_scheduler

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        """A pass, or the whole step of an objective that takes optimizer steps of its own."""
        objective = self.context.plan.objective
        if not objective.takes_steps:
            loss: torch.Tensor = super().training_step(model, inputs, num_items_in_batch)
            return loss
        model.train()
        return torch.as_tensor(objective.learn(TrainerLearner(self, model), inputs), device=self.args.device)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the model; one that belongs to a checkpoint (`_internal_call`) with what training alone needs."""
        as_saved = contextlib.nullcontext() if _internal_call else self.context.plan.objective.saved(self.model)
        with as_saved:
            super().save_model(output_dir, _internal_call)

    def floating_point_ops(self, inputs: Mapping[str, Any]) -> int:  # noqa: ARG002  # the Trainer's signature
        """0: the Trainer would count the parameters again in each pass."""
        return 0

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Measure the validation sets and log the figures, `<dataset>/<figure>` and the one that decides."""
        self.note("evaluating")
        context = self.context
        figures = context.plan.objective.evaluate(self.model, self.passes())
        if figures:
            self._log(figures, prefix="eval_")
            self._compare(figures[context.plan.objective.decides.name])
        self._sample()
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, figures)
        self.note()
        return figures

    def passes(self) -> Passes:
        """How this process measures."""
        context = self.context
        return Passes(
            rank=context.device.rank, world=context.device.world, rows=context.rows_per_pass,
            precision=context.device.precision, add=self._add,
        )  # fmt: skip

    def _sample(self) -> None:
        """Write the continuations of the prompts, except under FSDP, where no process holds the whole model."""
        context = self.context
        if context.config.sample_prompts and context.writes and not self.is_fsdp_enabled:
            model = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
            for sample in context.plan.objective.samples(model):
                context.folder.add(context.folder.samples, {"step": self.state.global_step, **sample})

    def measure_during(self) -> None:
        """Have the first process measure the plan's benchmark while the run trains, except under FSDP, as samples."""
        context, plan, benchmark = self.context, self.context.plan, self.context.plan.benchmark
        if benchmark is None or not context.writes or self.is_fsdp_enabled:
            return
        curve = Curve(
            benchmark, plan.objective.save, rows=self.model.get_input_embeddings().num_embeddings,
            context=plan.objective.seq_length, texts_per_pass=context.device.most_rows,
            precision=context.device.precision,
        )  # fmt: skip

        def measure() -> None:
            self.note(f"measuring {benchmark.name}")
            model = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
            due = self.control.should_log
            self._log(curve.figures(model), prefix="eval_")
            self.control.should_log = due  # reporting figures counts as logging the loss
            self.note()

        every = context.config.eval_benchmark_every or plan.eval_steps
        self.add_callback(BenchmarkCallback(measure, every=every, steps=plan.steps.count))

    def _add(self, sums: np.ndarray) -> np.ndarray:
        """The sum over all processes."""
        total: torch.Tensor = self.accelerator.reduce(torch.from_numpy(sums).to(self.args.device), reduction="sum")
        return total.cpu().numpy()

    def _compare(self, figure: float) -> None:
        """Save the model if it is the best so far; end the run after `early_stop` evaluations without a better one."""
        context = self.context
        context.decided.append(figure)
        best = context.plan.objective.decides.best(context.decided)
        if best == len(context.decided) - 1:
            with saving_errors(context.plan.folder):
                self.save_model(str(context.folder.saving / "best"))
            self.accelerator.wait_for_everyone()
            if context.writes:
                context.folder.keep_best()
        patience = context.config.early_stop
        if patience and len(context.decided) - 1 - best >= patience:
            self.control.should_training_stop = True
            self.control.should_save = False  # a run killed here must resume before this evaluation, and stop at it

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:  # noqa: ARG002  # as above
        """Log a training loss; the Trainer's summary at the end is left out because it holds clock times.

        Raises:
            TrainError: the loss is NaN or infinite.

        """
        if "loss" in logs:
            if not math.isfinite(logs["loss"]):
                raise TrainError(
                    f"the loss is {logs['loss']} at step {self.state.global_step:,}",
                    hint="Lower --learning-rate or raise --warmup; that is another run, which starts from step 0.",
                )
            objective = self.context.plan.objective
            figures = objective.step_figures()
            self._log({**logs, **figures})
            shown = [f"{name} {figures[name]:.3f}" for name in objective.shown]
            self._figures = ", ".join(
                [f"loss {logs['loss']:.3f}", *shown, f"learning rate {logs['learning_rate']:.2e}"]
            )
            self.note()

    def note(self, doing: str = "") -> None:
        """Show the last loss and learning rate with the progress, and what is done just now in place of a step."""
        self.context.progress.note(", ".join(part for part in (self._figures, doing) if part))

    def _log(self, figures: Mapping[str, Any], *, prefix: str = "") -> None:
        """Add a line to `metrics.jsonl`; trackers get the numbers under a prefix, with the tokens seen so far."""
        context, step = self.context, self.state.global_step
        rows = context.plan.steps.begin(step)
        if context.writes:
            epoch = round(rows / len(context.plan.objective.train), 6)
            context.folder.add(context.folder.metrics, {"step": step, "rows": rows, "epoch": epoch, **figures})
        reported = {f"{prefix}{name}": value for name, value in figures.items() if isinstance(value, int | float)}
        if context.trackers:
            reported["num_input_tokens_seen"] = self._count_tokens(step)
        self.control = self.callback_handler.on_log(self.args, self.state, self.control, reported)

    def _count_tokens(self, step: int) -> int:
        """Tokens of the rows before a step, padding left out."""
        tokens, order = self.context.plan.objective.tokens, self.context.order
        self._tokens_seen += sum(int(tokens[order.step(each)].sum()) for each in range(self._counted_steps, step))
        self._counted_steps = step
        return self._tokens_seen

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        self.note("saving a checkpoint")
        with saving_errors(self.context.plan.folder):
            super()._save_checkpoint(model, trial)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        with _loading_errors(Path(resume_from_checkpoint)):
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        with _loading_errors(Path(checkpoint or "")):
            super()._load_optimizer_and_scheduler(checkpoint)

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        wrong = {*load_result.missing_keys, *load_result.unexpected_keys} - set(self.model._tied_weights_keys or ())
        if wrong:
            raise ValueError(f"its weights are not those of this model: {min(wrong)}")


class _StepCallback(TrainerCallback):  # type: ignore[misc]  # as above
    """Advances the progress, names finished checkpoints, and has the loss of a checkpoint's step logged."""

    def __init__(self, trainer: CorpusTrainer) -> None:
        self.trainer = trainer
        self.context = trainer.context

    def on_step_end(self, _args: Any, state: Any, control: Any, **_: Any) -> None:
        """Count the step, and correct `state.epoch`: the Trainer takes the whole run for one epoch."""
        plan = self.context.plan
        state.epoch = plan.steps.begin(state.global_step) / len(plan.objective.train)
        if state.global_step == plan.steps.count and plan.objective.validation:
            control.should_evaluate = True
        if control.should_save:
            control.should_log = True
        self.context.progress.advance(1)

    def on_save(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        """Name the checkpoint when every process has written its part."""
        self.trainer.accelerator.wait_for_everyone()
        context = self.context
        if context.writes:
            tokens = context.plan.objective.tokens
            given = delivered(context.order, context.plan.shares, tokens, state.global_step)
            asked = {share.name: share.asked for share in context.plan.shares}
            context.folder.keep_checkpoint(
                state.global_step, mixture={"asked": asked, "delivered": given}, limit=context.config.save_total_limit
            )
        self.trainer.note()


@contextlib.contextmanager
def _loading_errors(checkpoint: Path) -> Iterator[None]:
    """Turn the errors of a damaged checkpoint into a TrainError that names it."""
    try:
        yield
    except (OSError, ValueError, RuntimeError, EOFError, SafetensorError, UnpicklingError) as error:
        raise TrainError(
            f"{checkpoint} cannot be read: {error}", hint="Delete it: a rerun resumes from the checkpoint before."
        ) from error
