"""The training stage: what an objective brings in, a model that `transformers` opens out.

In: `packed/*`, `chat/*` or the items of a task, `tokenizer/`, and with `init` the folder of a model. Out:
`models/<run>/`, see `run.folder`.
Invariants: equal configuration and rows use the same folder; a finished run is skipped; a killed run resumes from its
last checkpoint and ends, on the same machine, with the weights and the curve of an undisturbed run.
Cost: the passes of the model; reading and collating rows takes under a hundredth of a step.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from corpus.pipeline.errors import DeviceError, TrainError
from corpus.pipeline.progress import SILENT, Progress
from corpus.pipeline.workspace.files import disk_errors, write_atomic
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.ledger import Ledger, Report, Stopwatch, read_ledger, write_ledger
from corpus.train import networks
from corpus.train.benchmarks import during
from corpus.train.config import TrainConfig
from corpus.train.data.mixture import delivered
from corpus.train.model import device as devices
from corpus.train.model.device import Device
from corpus.train.objective import Result
from corpus.train.run import defaults, objectives, optimizer, orders, trackers
from corpus.train.run import plan as plans
from corpus.train.run.arguments import arguments
from corpus.train.run.context import RunContext
from corpus.train.run.curves import picture
from corpus.train.run.folder import RunFolder, saving_errors
from corpus.train.run.peers import join, peer_errors
from corpus.train.run.plan import RunPlan
from corpus.train.run.startup_log import log_startup, notes
from corpus.train.run.trainer import CorpusTrainer


def run(config: TrainConfig, workspace: Workspace, *, progress: Progress = SILENT) -> Report:
    """Train a model; the caller holds `workspace.writing()`.

    Under torchrun every process calls this; only the first one writes and reports progress.

    Raises:
        WorkspaceError: no dataset is packed, or there is no tokenizer.
        TokenizerError: rows or model belong to another tokenizer.
        PeerError: another process of the run is lost.
        TrainError: the run's name is taken, there are no training rows, a tracker is not installed, Muon is to
            run under FSDP, the loss is NaN, or documents of a row would see each other.
        DeviceError: there is no such device, or it is out of memory.
        ModelError: `init` does not hold a whole model, or `architecture` no causal one.
        DamageError, DiskError: as their names say; a rerun resumes.

    """
    watch = Stopwatch()
    trackers.check(config.report_to)
    model_files = networks.files(config)
    config, chosen = defaults.resolve(config)
    optimizer.check(config.optimizer)
    objective = objectives.make(config, workspace, progress)
    plan = plans.make(config, workspace, objective, model_files=model_files, benchmark=during.of(config))
    folder = RunFolder(plan, workspace.digest)
    ledger, reasons = folder.finished()
    if ledger is not None and not reasons and config.resume:
        return Report(ledger=ledger, folder=plan.folder, skipped=True)
    if ledger is not None and config.resume:
        folder.check_history(ledger)
    device = devices.choose(
        config.device, config.precision, workers=config.workers, compile_model=config.compile, threads=config.threads
    )
    if device.kind == "cpu":
        devices.keep_freed_memory()
    progress = progress if device.rank == 0 else SILENT
    if chosen:
        progress.say(chosen)
    for reason in reasons:
        progress.say(f"rerunning {plan.name} because {reason}")
    with peer_errors(device, config.ddp_timeout), devices.memory_errors(_out_of_memory(config)):
        return _train(config, workspace, plan, device, folder, progress, reasons, watch)


def _train(
    config: TrainConfig, workspace: Workspace, plan: RunPlan, device: Device, folder: RunFolder, progress: Progress,
    reasons: tuple[str, ...], watch: Stopwatch,
) -> Report:  # fmt: skip
    objective = plan.objective
    model = objective.network()
    objective.check(model)
    one_moment = optimizer.one_moment(model, config.optimizer or "adamw")
    fixed, row = objective.memory(
        model, precision=device.precision, checkpointing=config.gradient_checkpointing, one_moment=one_moment
    )
    share = -(-plan.steps.batch_size // device.world)
    useful = replace(device, most_rows=objective.most_rows(device))
    fitting = devices.fitting_rows(useful, fixed=fixed, per_row=row, rows=share)
    rows_per_pass = min(config.micro_batch_size or fitting, share)
    given = share if objective.takes_steps else rows_per_pass
    order = orders.make(config, plan, micro_batch_size=given, rank=device.rank, world=device.world)
    objective.follow(order, device.workers)
    join(device, config.ddp_timeout)
    args = arguments(config, plan, device, rows_per_pass=given, passes=order.accumulation)
    first, checkpoint = _begin(config, device, folder, args, parameters=model.num_parameters(), one_moment=one_moment)
    before = folder.history()
    context = RunContext(
        config=config, plan=plan, device=device, folder=folder, order=order, progress=progress,
        rows_per_pass=rows_per_pass, fixed_bytes=fixed, row_bytes=row,
        trackers=trackers.callbacks(config.report_to, plan.folder, first=first) if device.rank == 0 else (),
        decided=[line[objective.decides.name] for line in before if objective.decides.name in line],
    )  # fmt: skip
    whole = delivered(order, plan.shares, objective.tokens, plan.steps.count)
    tokens = sum(int(given["tokens"]) for given in whole.values())
    trainer = CorpusTrainer(context, model, args)
    trainer.measure_during()
    trackers.start(context.trackers, trainer)
    objective.begin(plan.folder, trainer.accelerator.unwrap_model(trainer.model), trainer.passes())
    said = notes(context)
    with objective.reading(first):
        log_startup(trainer, context, mixture=whole, first=first)
        training = Stopwatch()
        _run_trainer(trainer, context, first, checkpoint)
        seconds = training.seconds
    timings = {
        "seconds": seconds,
        "steps": plan.steps.count - first,
        "device": device.describe(),
        "rows_per_pass": rows_per_pass,
        "torch": torch.__version__,
    }
    ledger = _finish(trainer, context, workspace, timings=timings)
    speed = tokens * (1 - first / plan.steps.count) / seconds if seconds else 0.0
    return Report(
        ledger=ledger, folder=plan.folder, reasons=reasons, notes=notes(context, steps=trainer.state.global_step),
        seconds=watch.seconds,
        details={
            "device": device.describe(), "tokens_per_second": round(speed), "resumed_from": first, "said": said,
        },
    )  # fmt: skip


def _begin(
    config: TrainConfig,
    device: Device,
    folder: RunFolder,
    args: TrainingArguments,
    *,
    parameters: int,
    one_moment: int,
) -> tuple[int, Path | None]:
    """Step and checkpoint to resume from. The folder is prepared after every process has listed its checkpoints."""
    checkpoints = folder.checkpoints() if config.resume else []
    first, checkpoint = checkpoints[-1] if checkpoints else (0, None)
    args.distributed_state.wait_for_everyone()
    if device.rank == 0:
        folder.begin(first)
        folder.check_room(first, parameters=parameters, one_moment=one_moment, limit=config.save_total_limit)
    args.distributed_state.wait_for_everyone()
    return first, checkpoint


def _run_trainer(trainer: CorpusTrainer, context: RunContext, first: int, checkpoint: Path | None) -> None:
    with context.progress.bar("training", context.plan.steps.count, "steps", done=first):
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    with saving_errors(context.plan.folder):
        trainer.save_model(str(context.folder.saving / "model"))
    trainer.accelerator.wait_for_everyone()


def _finish(trainer: CorpusTrainer, context: RunContext, workspace: Workspace, *, timings: dict[str, Any]) -> Ledger:
    """Move the model to its place and write its documents and ledger; the other processes wait and read the ledger."""
    plan, folder = context.plan, context.folder
    if context.writes:
        counts = _counts(trainer, context)
        folder.keep_model()
        with disk_errors(plan.folder):
            result = Result(
                name=plan.name, settings=plan.settings, inputs=plan.inputs, counts=counts, history=folder.history()
            )
            write_atomic(plan.folder / "curves.png", picture(result.history, **plan.objective.curve))
            for name, content in plan.objective.documents(result).items():
                write_atomic(plan.folder / name, content)
        outputs = [workspace.file_digest(path, plan.folder) for path in folder.finished_files()]
        write_ledger(plan.folder, plan.ledger(outputs=outputs, counts=counts), timings)
    trainer.accelerator.wait_for_everyone()
    written = read_ledger(plan.folder)
    if written is None:
        raise TrainError(f"{plan.folder} was not finished by the first process", hint="Run the same command again.")
    return written


def _counts(trainer: CorpusTrainer, context: RunContext) -> dict[str, Any]:
    """The counts of the ledger."""
    plan, history, steps = context.plan, context.folder.history(), trainer.state.global_step
    losses = [line["loss"] for line in history if "loss" in line]
    decides = plan.objective.decides
    scores = [line for line in history if decides.name in line]
    best = scores[decides.best([line[decides.name] for line in scores])] if scores else None
    given = delivered(context.order, plan.shares, plan.objective.tokens, steps)
    return {
        "steps": steps,
        "rows": plan.steps.begin(steps),
        "tokens": sum(int(each["tokens"]) for each in given.values()),
        "mixture": {share.name: {"asked": round(share.asked, 6), **given[share.name]} for share in plan.shares},
        "parameters": trainer.model.num_parameters(),
        "loss": losses[-1] if losses else None,
        "validation": _by_dataset(scores[-1]) if scores else {},
        "best": {"step": best["step"], "validation": _by_dataset(best)} if best else None,
        **plan.objective.counts(),
    }


def _by_dataset(line: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The figures of an evaluation by dataset."""
    found: dict[str, dict[str, Any]] = {}
    for key, value in line.items():
        dataset, slash, figure = key.rpartition("/")
        if slash:
            found.setdefault(dataset, {})[figure] = value
    return found


def _out_of_memory(config: TrainConfig) -> DeviceError:
    other = "" if config.gradient_checkpointing else " or --gradient-checkpointing"
    return DeviceError(
        "the device has not enough memory for a pass",
        hint=f"Give a smaller --micro-batch-size{other}; a rerun resumes from the last checkpoint.",
    )
