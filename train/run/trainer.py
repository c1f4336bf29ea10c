"""The thin subclass of Hugging Face's Trainer: our order of rows, our evaluation, our folder; the loop is theirs.

In: a course and a model. Out: checkpoints and `metrics.jsonl` in the run's folder, and the trained model.
Invariants: the Trainer sees the whole run as one epoch whose batch sampler begins at the step that is next, so nothing
is skipped by reading it; each step has as many passes as any other; a checkpoint falls on a step whose loss is logged,
so a resumed curve has no torn point.
Cost: under a hundredth of a step beyond the passes of the model.
"""

from __future__ import annotations

import contextlib
import logging
import math
import statistics
from collections.abc import Iterator, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.utils.logging import disable_progress_bar

from corpus.pipeline.errors import TrainError
from corpus.train.data.collate import Collator, Rows
from corpus.train.data.mixture import delivered
from corpus.train.data.schedule import rate
from corpus.train.evaluation.metrics import Score, evaluate, spread
from corpus.train.run.context import Course
from corpus.train.run.folder import saving_errors


class CorpusTrainer(Trainer):  # type: ignore[misc]  # transformers is untyped to us
    """Hugging Face's Trainer over packed rows."""

    control: Any

    def __init__(self, course: Course, model: Any, args: TrainingArguments) -> None:
        plan = course.plan
        self.course = course
        course.order.first_step = lambda: self.state.global_step
        _hush()
        super().__init__(
            model=model,
            args=args,
            data_collator=Collator(
                seq_length=plan.seq_length,
                pad_id=plan.pad,
                document_mask=course.config.document_mask,
                answer_after=plan.answer_after,
            ),
            train_dataset=plan.train,
            eval_dataset=dict(plan.validation) or None,
            callbacks=[_Watch(course, self)],
        )
        self.remove_callback(PrinterCallback)
        model.config.use_cache = True  # the batch switches it off; the saved model must generate with it

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Batches in our order; a generator of its own leaves the random state of a resumed run alone."""
        return DataLoader(
            self.train_dataset,
            batch_sampler=self.course.order,
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory,
            generator=torch.Generator(),
        )

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> LambdaLR:  # noqa: ARG002  # the Trainer's signature
        """The learning rate of each step, as `steps.rate` draws it."""
        plan = self.course.plan
        self.lr_scheduler = LambdaLR(
            optimizer or self.optimizer, lambda step: rate(step, plan.warmup_steps, plan.steps, plan.decay_to)
        )
        self._created_lr_scheduler = True
        return self.lr_scheduler

    def floating_point_ops(self, inputs: Mapping[str, Any]) -> int:  # noqa: ARG002  # the Trainer's signature
        """Nothing: the Trainer would count the parameters anew in each pass."""
        return 0

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Score the validation rows of each dataset and note the figures under `<dataset>/<figure>`.

        The mean of the datasets' bits per character decides which model is the best, and whether the run stops early.
        """
        figures: dict[str, float] = {}
        bits: list[float] = []
        for name, rows in self.course.plan.validation.items():
            score = self.score(rows)
            if score.tokens:
                figures |= {f"{name}/{figure}": value for figure, value in score.figures().items()}
                bits.append(score.bits_per_character)
        if bits:
            mean = statistics.fmean(bits)
            self._note(figures | {"bits_per_character": mean})
            self._compare(mean)
        self._sample()
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, figures)
        return figures

    def _sample(self) -> None:
        """Write down what the model makes of the prompts, in the process that writes.

        Not under FSDP, where no process alone has the model.
        """
        course = self.course
        if course.samples is not None and course.writes and not self.is_fsdp_enabled:
            model = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
            for sample in course.samples.write(model, course.config.seed):
                course.folder.note_sample({"step": self.state.global_step, **sample})

    def _compare(self, mean: float) -> None:
        """Keep the model when it is the best so far; end the run when none was better for long."""
        course = self.course
        course.means.append(mean)
        best = course.means.index(min(course.means))
        if best == len(course.means) - 1:
            with saving_errors(course.plan.folder):
                self.save_model(str(course.folder.saving / "best"))
            self.accelerator.wait_for_everyone()
            if course.writes:
                course.folder.keep_best(tokenizer=course.tokenizer)
        patience = course.config.early_stop
        if patience and len(course.means) - 1 - best >= patience:
            self.control.should_training_stop = True
            self.control.should_save = False  # a run killed from here on must come to this evaluation again, and stop

    def score(self, rows: Rows) -> Score:
        """Score a dataset's rows, each process its share."""
        course, world = self.course, self.course.device.world
        score = evaluate(
            self.model,
            rows,
            spread(len(rows), course.config.eval_rows)[course.device.rank :: world],
            collator=self.data_collator,
            sizes=course.sizes,
            rows_per_pass=course.rows_per_pass,
            precision=course.device.precision,
        )
        if world == 1:
            return score
        sums = torch.tensor([score.nats, score.tokens, score.characters, score.bytes], dtype=torch.float64)
        nats, *counts = self.accelerator.reduce(sums.to(self.args.device), reduction="sum").tolist()
        return Score(nats=nats, tokens=int(counts[0]), characters=int(counts[1]), bytes=int(counts[2]))

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:  # noqa: ARG002  # as above
        """Note a training loss; the Trainer's own summary at the end has clock times in it and is left out.

        Raises:
            TrainError: the loss is no number any more.

        """
        if "loss" in logs:
            if not math.isfinite(logs["loss"]):
                raise TrainError(
                    f"the loss is {logs['loss']} at step {self.state.global_step:,}",
                    hint="Lower --learning-rate or raise --warmup; that is another run, which begins anew.",
                )
            self._note(logs)
        self.control = self.callback_handler.on_log(self.args, self.state, self.control, logs)

    def _note(self, figures: Mapping[str, float]) -> None:
        if self.course.writes and figures:
            step, plan = self.state.global_step, self.course.plan
            rows = plan.steps.begin(step)
            line = {"step": step, "rows": rows, "epoch": round(rows / len(plan.train), 6), **figures}
            self.course.folder.note(line)
            if self.course.board is not None:
                self.course.board.note(line)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        with saving_errors(self.course.plan.folder):
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


class _Watch(TrainerCallback):  # type: ignore[misc]  # as above
    """Moves the bar, keeps checkpoints, and has the loss of a checkpoint's step logged."""

    def __init__(self, course: Course, trainer: CorpusTrainer) -> None:
        self.course = course
        self.trainer = trainer

    def on_step_end(self, _args: Any, state: Any, control: Any, **_: Any) -> None:
        """Count the step; `state.epoch` is the share of the whole run until it is set right here."""
        plan = self.course.plan
        state.epoch = plan.steps.begin(state.global_step) / len(plan.train)
        if state.global_step == plan.steps.count and plan.validation:
            control.should_evaluate = True
        if control.should_save:
            control.should_log = True
        self.course.progress.advance(1)

    def on_save(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        """Keep the checkpoint when every process has written its part."""
        self.trainer.accelerator.wait_for_everyone()
        course = self.course
        if course.writes:
            given = delivered(course.order, course.plan.shares, course.plan.tokens, state.global_step)
            asked = {share.name: share.asked for share in course.plan.shares}
            course.folder.keep_checkpoint(
                state.global_step,
                tokenizer=course.tokenizer,
                mixture={"asked": asked, "delivered": given},
                limit=course.config.save_total_limit,
            )


def _hush() -> None:
    """Switch off the bars that `transformers` shows beside ours, and its warning that save_steps has changed."""
    disable_progress_bar()
    logging.getLogger("transformers.trainer_utils").setLevel(logging.ERROR)


@contextlib.contextmanager
def _loading_errors(checkpoint: Path) -> Iterator[None]:
    """Say which checkpoint is damaged."""
    try:
        yield
    except (OSError, ValueError, RuntimeError, EOFError, SafetensorError, UnpicklingError) as error:
        raise TrainError(
            f"{checkpoint} cannot be read: {error}", hint="Delete it: a rerun goes on from the one before."
        ) from error
