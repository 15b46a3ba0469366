"""What the files under `configs/finetune` have in common: the settings of ALBERT Table 14."""

import dataclasses

from experiments.tasks.config import (
    DropoutConfig,
    FinetuneConfig,
    FinetuneRunConfig,
    TaskDataConfig,
    TaskName,
    finetuning_optimizer,
)


def table_14(
    task: TaskName,
    *,
    learning_rate: float,
    batch_size: int,
    encoder_dropout: float,
    num_train_steps: int,
    num_warmup_steps: int,
    evaluate_every: int,
    max_seq_length: int = 512,
) -> FinetuneConfig:
    """A row of the table; the classifier's dropout is 0.1 in each.

    Args:
        task: the task.
        learning_rate: what warm-up rises to.
        batch_size: examples a step.
        encoder_dropout: of states and attention.
        num_train_steps: steps of the run.
        num_warmup_steps: steps of warm-up.
        evaluate_every: steps between two evaluations, which the table does not say.
        max_seq_length: pieces that a row may have.
    """
    return FinetuneConfig(
        task=task,
        data=TaskDataConfig(max_seq_length=max_seq_length),
        dropout=DropoutConfig(encoder=encoder_dropout, classifier=0.1),
        optimizer=dataclasses.replace(
            finetuning_optimizer(),
            learning_rate=learning_rate,
            num_train_steps=num_train_steps,
            num_warmup_steps=num_warmup_steps,
        ),
        run=FinetuneRunConfig(evaluate_every=evaluate_every, checkpoint_every=evaluate_every),
        global_batch_size=batch_size,
    )
