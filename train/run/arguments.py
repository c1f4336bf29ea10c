"""Our configuration in the words of Hugging Face's Trainer.

In: configuration, plan and device. Out: `TrainingArguments`; with several processes, making them also joins these.
"""

from __future__ import annotations

from dataclasses import fields

from transformers import TrainingArguments

from corpus.train.config import TrainConfig
from corpus.train.model.device import Device
from corpus.train.run.plan import Plan

_KNOWN = {field.name for field in fields(TrainingArguments)}
_CHECKPOINTING = "activation_checkpointing" if "activation_checkpointing" in _KNOWN else "gradient_checkpointing"
"""What this version of `transformers` calls it."""


def arguments(config: TrainConfig, plan: Plan, device: Device, *, rows_per_pass: int, passes: int) -> TrainingArguments:
    """What the Trainer is told.

    Args:
        config: what the user set.
        plan: what the run does.
        device: where it runs.
        rows_per_pass: most rows of a forward pass.
        passes: passes of one process in a step.

    """
    args = TrainingArguments(
        output_dir=str(plan.folder / ".saving"),
        max_steps=plan.steps.count,
        per_device_train_batch_size=rows_per_pass,
        gradient_accumulation_steps=passes,
        learning_rate=plan.learning_rate,
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
        eval_strategy="steps" if plan.validation else "no",
        eval_steps=plan.eval_steps,
        save_strategy="steps",
        save_steps=plan.save_steps,
        dataloader_num_workers=device.workers,
        dataloader_pin_memory=device.kind == "cuda",
        remove_unused_columns=False,
        ignore_data_skip=True,
        average_tokens_across_devices=True,
        ddp_find_unused_parameters=False,
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
        log_level="warning",
        log_level_replica="error",
        **{_CHECKPOINTING: config.gradient_checkpointing},
    )
    args._n_gpu = min(args.n_gpu, 1)  # one process, one device: more of them through torchrun, not DataParallel
    return args
