"""Names by which people look for a setting: misspelled, in another group, or of other codebases."""

from collections.abc import Sequence

from albert_jax.settings import did_you_mean

_SYNONYMS = {
    "learning_rate": "lr peak_lr max_lr rate base_lr init_lr",
    "learning_rates": "lrs rates",
    "num_train_steps": "steps num_steps train_steps max_steps total_steps iterations epochs",
    "num_warmup_steps": "warmup warmup_steps warmup_ratio warmup_proportion",
    "num_epochs": "epochs num_train_epochs",
    "max_train_examples": "max_train_samples num_examples train_examples num_labels",
    "global_batch_size": "batch_size batch bs train_batch_size per_device_train_batch_size",
    "evaluation_batch_size": "eval_batch_size per_device_eval_batch_size",
    "weight_decay": "wd decay",
    "beta_1": "beta1 b1 adam_beta1",
    "beta_2": "beta2 b2 adam_beta2",
    "epsilon": "eps adam_epsilon",
    "max_grad_norm": "clip grad_clip clip_norm gradient_clip max_gradient_norm",
    "schedule": "lr_schedule lr_scheduler scheduler decay_schedule lr_scheduler_type",
    "name": "optimizer optim optimizer_name",
    "seed": "random_seed rng_seed",
    "max_seq_length": "seq_len seq_length sequence_length max_len max_length length",
    "max_predictions_per_seq": "max_predictions num_predictions slots",
    "masked_lm_prob": "mask_prob mask_rate mlm_prob mlm_probability masking_rate",
    "sentence_objective": "sop nsp sentence_order",
    "corpus_dir": "corpus data_dir dataset input_file",
    "vocab_size": "vocab vocabulary_size",
    "hidden_size": "hidden width d_model dim",
    "num_hidden_layers": "layers num_layers n_layers depth",
    "num_hidden_groups": "groups num_groups",
    "num_attention_heads": "heads num_heads n_heads",
    "intermediate_size": "ffn_size ffn_dim mlp_dim d_ff",
    "hidden_act": "activation act",
    "hidden_dropout_prob": "dropout dropout_prob dropout_rate hidden_dropout",
    "attention_probs_dropout_prob": "attention_dropout attn_dropout",
    "position_encoding": "position_embedding_type positions",
    "rotary_base": "rope_theta rope_base rotary_emb_base theta global_rope_theta",
    "attention_window": "local_attention sliding_window window window_size attention_reach",
    "global_every": "global_attn_every_n_layers sliding_window_pattern",
    "parameter_sharing": "sharing share",
    "accumulation_steps": "gradient_accumulation_steps grad_accum accumulate micro_batches",
    "dtype": "precision compute_dtype bf16 fp16 mixed_precision",
    "remat": "gradient_checkpointing checkpointing rematerialization",
    "log_every": "log_steps logging_steps log_interval",
    "evaluate_every": "eval_every eval_steps eval_interval",
    "checkpoint_every": "save_every save_steps save_interval save_checkpoints_steps",
    "keep_checkpoints": "save_total_limit max_to_keep",
    "init_from": "init_checkpoint checkpoint pretrained model_name_or_path restore_from",
    "patience": "early_stopping early_stopping_patience",
}


def meant_setting(name: str, names: Sequence[str], prefix: str = "") -> str:
    """Return a question that names the setting that was probably meant, or an empty string.

    It is a setting of that name, or with that synonym, in the same group or else as high up as
    possible. If there is none, it is the setting with the closest spelling.

    Example: ``meant_setting("model.lr", ["seed", "optimizer.learning_rate"], prefix="--config.")``
    gives ``; did you mean --config.optimizer.learning_rate?``

    Args:
        name: what was written, dotted.
        names: all settings.
        prefix: put before the setting.
    """
    group, _, leaf = name.lower().replace("-", "_").rpartition(".")

    def is_meant(known: str) -> bool:
        known_leaf = known.rpartition(".")[2]
        return leaf == known_leaf or leaf in _SYNONYMS.get(known_leaf, "").split()

    def distance(known: str) -> tuple[bool, int]:
        return known.rpartition(".")[0] != group, known.count(".")

    if meant := sorted(filter(is_meant, names), key=distance):
        return f"; did you mean {prefix}{meant[0]}?"
    return did_you_mean(name, {known: f"{prefix}{known}" for known in names})
