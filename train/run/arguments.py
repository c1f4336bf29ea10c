"""`TrainConfig` as the `TrainingArguments` of Hugging Face's Trainer.

In: configuration, plan and device. Out: `TrainingArguments`; making them under torchrun starts the process group.
"""

from __future__ import annotations

from dataclasses import fields

from transformers import TrainingArguments

from corpus.train.config import TrainConfig
from corpus.train.model.device import Device
from corpus.train.run.plan import RunPlan

_KNOWN = {field.name for field in fields(TrainingArguments)}
_CHECKPOINTING = "activation_checkpointing" if "activation_checkpointing" in _KNOWN else "gradient_checkpointing"
"""The argument's name in this version of `transformers`."""


def arguments(
    config: TrainConfig, plan: RunPlan, device: Device, *, rows_per_pass: int, passes: int
) -> TrainingArguments:
    """The Trainer's arguments for steps of `passes` passes in each process."""
    args = TrainingArguments(
        output_dir=str(plan.folder / ".saving"),
        run_name=plan.name,
        max_steps=plan.steps.count,
        per_device_train_batch_size=rows_per_pass,
        gradient_accumulation_steps=passes,
        learning_rate=plan.settings["learning_rate"],
        weight_decay=config.weight_decay,
        adam_beta1=config.beta1,
        adam_beta2=config.beta2,
        optim="adamw_torch_fused",
        max_grad_norm=config.clip,
        seed=config.seed,
        bf16=device.precision == "bf16",
        use_cpu=device.kind == "cpu",
        torch_compile=device.compile,
        logging_strategy="steps",
        logging_steps=config.log_steps,
        eval_strategy="steps" if plan.objective.validation else "no",
        eval_steps=plan.eval_steps,
        save_strategy="steps",
        save_steps=plan.save_steps,
        dataloader_num_workers=device.workers,
        dataloader_pin_memory=device.kind == "cuda",
        remove_unused_columns=False,
        ignore_data_skip=True,
        average_tokens_across_devices=True,
        ddp_find_unused_parameters=False,
        ddp_timeout=config.ddp_timeout,
        logging_nan_inf_filter=False,
        report_to="none",  # `trackers` makes the callbacks
        disable_tqdm=True,
        log_level="warning",
        log_level_replica="error",
        **{_CHECKPOINTING: config.gradient_checkpointing},
    )
    args._n_gpu = min(args.n_gpu, 1)  # one device a process: torchrun, not DataParallel
    return args
