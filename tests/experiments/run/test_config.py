"""Pre-training configurations: the resolved values of all files, and what a workdir fixes."""

import ast
import dataclasses
from typing import Any

import pytest
from config_files import CONFIGS, load

from albert_jax.config import AlbertConfig
from albert_jax.settings import all_settings
from albert_jax.tasks.config import ObjectiveConfig
from albert_jax.training.config import OptimizerConfig
from data_pipeline.config import DataConfig
from data_pipeline.errors import InputError
from experiments.cli.dataclass_forms import flatten, to_dict
from experiments.run.config import ExperimentConfig, RunConfig
from experiments.run.workdir import check_resumable

# Every value of base v1; for the other files, what they change.
BASE_V1 = {
    "model.vocab_size": 30000,
    "model.embedding_size": 128,
    "model.hidden_size": 768,
    "model.num_hidden_layers": 12,
    "model.num_hidden_groups": 1,
    "model.inner_group_num": 1,
    "model.num_attention_heads": 12,
    "model.intermediate_size": 3072,
    "model.hidden_act": "gelu",
    "model.hidden_dropout_prob": 0.1,
    "model.attention_probs_dropout_prob": 0.1,
    "model.max_position_embeddings": 512,
    "model.type_vocab_size": 2,
    "model.initializer_range": 0.02,
    "model.layer_norm_eps": 1e-12,
    "model.parameter_sharing": "all",
    "model.embedding_mapping": "when_needed",
    "model.position_encoding": "absolute",
    "model.max_relative_distance": 16,
    "model.rotary_base": 10_000.0,
    "model.attention_window": 0,
    "model.global_every": 3,
    "model.norm": "post",
    "model.depth_rank": 0,
    "model.depth_signal": "none",
    "model.num_experts": 0,
    "model.expert_rank": 8,
    "model.experts_per_token": 2,
    "model.expert_layers": "all",
    "model.dense_biases": True,
    "model.norm_kind": "layer",
    "model.feed_forward": "mlp",
    "model.initialization": "fixed",
    "model.tie_word_embeddings": True,
    "data.corpus_dir": "",
    "data.decay_corpus_dir": "",
    "data.records_dir": "",
    "data.plan_dir": "",
    "data.max_seq_length": 512,
    "data.packing": "unpacked",
    "data.max_pairs_per_row": 16,
    "data.short_seq_prob": 0.1,
    "data.sentence_objective": "sop",
    "data.single_sentence": "split",
    "data.num_plan_variants": 1,
    "data.masking": "ngram",
    "data.masked_lm_prob": 0.15,
    "data.max_predictions_per_seq": 20,
    "data.ngram": 3,
    "data.favor_shorter_ngram": True,
    "data.corruption": "per_piece",
    "data.mask_reach": "segment",
    "data.random_replacement": "ordinary",
    "data.word_start_rule": "space",
    "objective.token_loss": "masked_lm",
    "objective.generator": "shared",
    "objective.generator_layers": None,
    "objective.generator_width": 0.25,
    "objective.detection_weight": 50.0,
    "optimizer.name": "lamb",
    "optimizer.learning_rate": 0.00176,
    "optimizer.schedule": "legacy_poly",
    "optimizer.poly_power": 1.0,
    "optimizer.decay_share": 0.1,
    "optimizer.num_train_steps": 125_000,
    "optimizer.num_warmup_steps": 3125,
    "optimizer.start_warmup_step": 0,
    "optimizer.weight_decay": 0.01,
    "optimizer.beta_1": 0.9,
    "optimizer.beta_2": 0.999,
    "optimizer.epsilon": 1e-6,
    "optimizer.muon_momentum": 0.95,
    "optimizer.slow_beta": 0.999,
    "optimizer.slow_share": 5.0,
    "optimizer.average_decay": None,
    "optimizer.z_loss_weight": 0.0,
    "optimizer.curvature_every": 10,
    "optimizer.curvature_beta": 0.99,
    "optimizer.curvature_scale": 0.05,
    "optimizer.bias_correction": False,
    "optimizer.max_grad_norm": 1.0,
    "optimizer.reference_batch_size": None,
    "distillation.teacher": "",
    "distillation.top_k": 64,
    "distillation.temperature": 1.0,
    "distillation.weight": 1.0,
    "run.parallelism": "pjit",
    "run.fsdp": 1,
    "run.tensor": 1,
    "run.accumulation_steps": 1,
    "run.dtype": "float32",
    "run.matmuls": "same",
    "run.reduction_dtype": "float32",
    "run.attention": "auto",
    "run.sequence_slots": None,
    "run.unroll": 0,
    "run.fused_layers": None,
    "run.remat": "none",
    "run.compiler_options": "",
    "run.deterministic_kernels": False,
    "run.log_every": 100,
    "run.evaluate_every": 5000,
    "run.checkpoint_every": 5000,
    "run.keep_checkpoints": 5,
    "run.evaluation_batch_size": 64,
    "run.evaluation_pairs": 6400,
    "run.evaluation_seq_length": None,
    "run.hang_seconds": None,
    "run.check_determinism_every": None,
    "run.dcn_data": None,
    "run.skip_nonfinite_steps": 0,
    "run.skip_spike_sigmas": None,
    "run.init_from": None,
    "run.init_groups": "same",
    "run.init_embeddings": "stored",
    "run.trackers": "tensorboard",
    "run.compile_cache_dir": None,
    "run.profile_steps": None,
    "run.profile_processes": "first",
    "run.change_num_train_steps": False,
    **{
        f"phases.{name}.{field}": value
        for name in ("first", "second")
        for field, value in {
            "num_steps": 0,
            "max_seq_length": 128,
            "max_predictions_per_seq": 20,
            "masked_lm_prob": None,
            "global_batch_size": None,
        }.items()
    },
    "global_batch_size": 4096,
    "seed": 12345,
}


def size(layers: int, hidden: int, heads: int) -> dict[str, Any]:
    return {
        "model.num_hidden_layers": layers,
        "model.hidden_size": hidden,
        "model.num_attention_heads": heads,
        "model.intermediate_size": 4 * hidden,
    }


NO_DROPOUT = {"model.hidden_dropout_prob": 0.0, "model.attention_probs_dropout_prob": 0.0}
LARGE, XXLARGE = size(24, 1024, 16), size(12, 4096, 64) | NO_DROPOUT
PACKED = {"data.packing": "packed", "data.max_predictions_per_seq": 77, "global_batch_size": 2048}
SMALL = NO_DROPOUT | {
    "model.max_position_embeddings": 128,
    "data.max_seq_length": 64,
    "data.packing": "packed",
    "data.max_predictions_per_seq": 10,
    "optimizer.name": "adamw",
    "optimizer.learning_rate": 1e-3,
    "optimizer.schedule": "poly",
    "optimizer.bias_correction": True,
}


def steps(number: int) -> dict[str, Any]:
    return {"optimizer.num_train_steps": number}


CHANGES: dict[str, dict[str, Any]] = {
    "albert_base": {},
    "albert_base_v1": {},
    "albert_large_v1": LARGE,
    "albert_xlarge_v1": size(24, 2048, 16),
    "albert_xxlarge_v1": XXLARGE | steps(1_500_000),
    "albert_base_v2": NO_DROPOUT | steps(10_000_000),
    "albert_large_v2": LARGE | NO_DROPOUT | steps(3_000_000),
    "albert_xlarge_v2": size(24, 2048, 32) | NO_DROPOUT | steps(3_000_000),
    "albert_xxlarge_v2": XXLARGE | steps(3_000_000),
    "albert_base_packed": PACKED,
    "albert_large_packed": LARGE | PACKED,
    "albert_xlarge_packed": size(24, 2048, 16) | PACKED,
    "albert_xxlarge_packed": XXLARGE | PACKED,
    "albert_modern": NO_DROPOUT
    | PACKED
    | {
        "model.position_encoding": "rotary",
        "model.attention_window": 128,
        "model.depth_rank": 16,
        "data.masked_lm_prob": 0.3,
        "data.max_predictions_per_seq": 154,
        "optimizer.name": "muon",
        "optimizer.learning_rate": 2e-3,
        "optimizer.schedule": "poly",
        "optimizer.num_train_steps": 60_000,
        "optimizer.num_warmup_steps": 1500,
        "optimizer.beta_2": 0.98,
        "optimizer.bias_correction": True,
    },
    "albert_tiny_cpu": SMALL
    | size(3, 128, 4)
    | {
        "model.position_encoding": "rotary",
        "model.initializer_range": 0.05,
        "data.masked_lm_prob": 0.2,
        "data.max_predictions_per_seq": 13,
        "optimizer.name": "muon",
        "optimizer.learning_rate": 6e-3,
        "optimizer.beta_2": 0.98,
        "optimizer.num_train_steps": 3200,
        "optimizer.num_warmup_steps": 80,
        "run.log_every": 50,
        "run.evaluate_every": 800,
        "run.checkpoint_every": 800,
        "run.evaluation_pairs": 512,
        "global_batch_size": 32,
    },
    "albert_small_wiki": SMALL
    | size(3, 128, 4)
    | {
        "model.max_position_embeddings": 512,
        "optimizer.learning_rate": 1.5e-3,
        "optimizer.num_train_steps": 5000,
        "optimizer.num_warmup_steps": 300,
        "run.log_every": 50,
        "run.evaluate_every": 500,
        "run.checkpoint_every": 500,
        "run.evaluation_pairs": 2048,
        "global_batch_size": 128,
    },
    "albert_six_minutes": SMALL
    | size(6, 512, 8)
    | {
        "model.max_position_embeddings": 512,
        "data.max_seq_length": 128,
        "data.max_predictions_per_seq": 20,
        "optimizer.learning_rate": 7e-4,
        "optimizer.beta_2": 0.98,
        "optimizer.num_train_steps": 9000,
        "optimizer.num_warmup_steps": 600,
        "run.dtype": "bfloat16",
        "run.evaluate_every": 3000,
        "run.checkpoint_every": 3000,
        "run.evaluation_batch_size": 256,
        "run.evaluation_pairs": 2048,
        "global_batch_size": 512,
    },
}


def test_every_config_file_resolves_to_the_values_that_are_pinned_here() -> None:
    files = {path.stem for path in CONFIGS.glob("albert_*.py")}
    assert files == set(CHANGES)
    for name, changes in CHANGES.items():
        values = flatten(to_dict(load(name)))
        assert values == BASE_V1 | changes, name
        assert all(type(values[key]) is type((BASE_V1 | changes)[key]) for key in values), name


def test_every_config_file_documents_its_experiment() -> None:
    for path in set(CONFIGS.glob("albert_*.py")) - {CONFIGS / "albert_base.py"}:
        text = path.read_text(encoding="utf-8")
        for row in ("Model", "Data", "Steps", "Command", "Expected"):
            assert f"\n{row} " in text, (path, row)
        assert f"--config=experiments/configs/{path.name}" in text


def test_config_files_show_their_values() -> None:
    shown = {"global_batch_size", "learning_rate", "num_train_steps", "num_warmup_steps"}
    shown |= {"max_seq_length", "hidden_size", "num_hidden_layers", "num_attention_heads"}
    shown |= {"max_predictions_per_seq", "masking", "masked_lm_prob", "ngram", "packing"}
    for path in set(CONFIGS.glob("albert_*.py")) - {CONFIGS / "albert_base.py"}:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        named = {node.arg for node in ast.walk(tree) if isinstance(node, ast.keyword)}
        assert shown <= named, (path, shown - named)


def test_a_workdir_takes_other_run_values_but_no_other_experiment() -> None:
    old = load("albert_base")

    def changed(**parts: Any) -> ExperimentConfig:
        return dataclasses.replace(old, **parts)

    assert check_resumable(old, old, workdir="w") == {}
    run = RunConfig(log_every=10, accumulation_steps=2)
    moved = dataclasses.replace(old.data, corpus_dir="elsewhere")
    assert check_resumable(old, changed(run=run, data=moved), workdir="w") == {
        "data.corpus_dir": ("", "elsewhere"),
        "run.accumulation_steps": (1, 2),
        "run.log_every": (100, 10),
    }
    for parts in (
        {"model": AlbertConfig.from_name("large_v1")},
        {"data": DataConfig(ngram=2)},
        {"optimizer": OptimizerConfig(learning_rate=1e-3)},
        {"objective": ObjectiveConfig(token_loss="replaced_tokens")},
        {"global_batch_size": 512},
        {"seed": 1},
    ):
        with pytest.raises(InputError, match=r"--workdir=w holds another .* --workdir$"):
            check_resumable(old, changed(**parts), workdir="w")

    longer = changed(optimizer=OptimizerConfig(num_train_steps=200_000))
    with pytest.raises(InputError, match=r"was 125000 and is 200000; add .*change_num_train_steps"):
        check_resumable(old, longer, workdir="w")
    asked = dataclasses.replace(longer, run=RunConfig(change_num_train_steps=True))
    assert "optimizer.num_train_steps" in check_resumable(old, asked, workdir="w")


def test_every_setting_has_a_name_on_the_command_line() -> None:
    assert {one.name for one in all_settings(ExperimentConfig)} == {*BASE_V1, "model.extra"}
