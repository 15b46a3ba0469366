"""Sweeps: every shipped one is valid, and mistakes are reported."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from random_inputs import parameter_shapes, random_batch, replaced_tokens_shapes

from albert_jax.devices.mesh import make_mesh
from albert_jax.devices.sharding import place_batch
from albert_jax.tasks.config import Generator
from albert_jax.training.optimizer import make_optimizer
from albert_jax.training.parallel import compile_train_step
from albert_jax.training.train_step import create_train_state
from data_pipeline.config import DataConfig
from data_pipeline.errors import InputError
from experiments.cli.assignments import parse_assignments
from experiments.run.compiled_steps import model_of, objective_of
from experiments.run.config import ExperimentConfig
from experiments.sweep import format_plan
from experiments.sweeping.plan import plan_points
from experiments.sweeping.point_kind import PlannedPoint
from experiments.sweeping.points import expand, override_flags, select
from experiments.sweeping.sweep import Size, Sweep, SweepRow, downstream, grid, load_sweep

# ml_collections loads a config file in a way that Python wants to drop.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")

ROOT = Path(__file__).parents[3]
FILES = {path.stem: path for path in sorted((ROOT / "experiments/sweeps").glob("[a-z]*.py"))}
FINETUNINGS = {"decoder_sharing", "sst2_labels"}  # tested in `test_finetuning_sweep.py`
SWEEPS = {name: path for name, path in FILES.items() if name not in FINETUNINGS}
# Backbones of the paper's size by sweep and row, from the formulas of the released shapes.
BACKBONES = {
    "embedding_size": {"all-64": 9_681_408, "all-256": 15_687_936, "none-768": 109_081_344},
    "parameter_sharing": {
        "128-all": 11_683_584,
        "128-attention": 63_647_232,
        "128-ffn": 37_686_528,
        "128-none": 89_650_176,
        "768-attention": 83_078_400,
        "768-ffn": 57_117_696,
    },
    "groups": {"1": 11_683_584, "4": 11_683_584 + 3 * 7_087_872},
    "depth": {"1": 17_683_968, "48": 17_683_968},
    "width": {"1024": 17_683_968, "4096": 222_595_584, "6144": 495_518_208},
    "xxlarge_depth": {"24": 222_595_584},
    # 512 positions of width 128 make room for two tables of 33 distances of width 64.
    "position_encoding": {"relative_local": 11_683_584 - 65_536 + 2 * 33 * 64},
    "norm": {"pre-3125": 11_683_584 + 2 * 768},
}


def plan(path: str, size: Size, overrides: Mapping[str, Any]) -> list[PlannedPoint]:
    sweep, _ = load_sweep(path, size)
    points = expand(sweep, Path("sweeps/one"), overrides)
    return plan_points(points, sweep, task_dirs={}, task_overrides={})


@pytest.mark.parametrize("name", SWEEPS)
def test_every_point_of_every_sweep_builds_and_has_its_parameters(name: str) -> None:
    for size in Size:
        planned = plan(str(SWEEPS[name]), size, {"data.corpus_dir": "corpora/wiki_en"})
        assert len(planned) >= 2
        assert len({one.point.workdir for one in planned}) == len(planned)
        assert len({repr(one.config) for one in planned}) == len(planned), "two points are alike"
        for one in planned:
            config, generator = one.config, one.config.generator
            shapes = parameter_shapes(config.model)
            if generator is not None:
                own = config.objective.generator is Generator.OWN
                shapes = replaced_tokens_shapes(config.model, generator, own=own)
            expected = sum(int(np.prod(shape)) for shape in shapes.values())
            assert one.parameters == expected, one.point.name
            assert one.config.evaluation_seq_length == planned[0].config.evaluation_seq_length
            assert one.config.data.corpus_dir == "corpora/wiki_en"
        if size is Size.PAPER:
            warmups = {one.config.optimizer.num_warmup_steps for one in planned}
            assert warmups == {3125} or name == "norm"  # whatever the number of steps
            found = {one.point.row.name: one.backbone for one in planned}
            for row, backbone in BACKBONES.get(name, {}).items():
                assert found[row] == backbone, row
        else:
            assert max(one.flops_per_row for one in planned) < 3e9
        for line, one in zip(format_plan(planned).splitlines()[::2], planned, strict=True):
            assert f"{one.parameters:,} parameters" in line


def test_warm_up_follows_an_override_of_the_steps_alone() -> None:
    steps, warmup = "optimizer.num_train_steps", "optimizer.num_warmup_steps"
    for overrides, expected in (({}, 40), ({steps: "50"}, 5), ({steps: "50", warmup: "2"}, 2)):
        planned = plan(str(SWEEPS["ngram"]), Size.SMALL, overrides)
        assert {one.config.optimizer.num_warmup_steps for one in planned} == {expected}


def test_every_sweep_states_its_question_and_cost() -> None:
    assert len(SWEEPS) >= 16
    for name, path in FILES.items():
        text = path.read_text(encoding="utf-8")
        for row in ("Rows", "Paper", "Cost", "Small", "Command", "Found"):
            assert f"\n{row} " in text, (name, row)
        assert f"--sweep=experiments/sweeps/{name}.py" in text


def shrink(config: ExperimentConfig) -> ExperimentConfig:
    """The same structure, optimizer and objectives, with few units."""
    same_width = config.model.embedding_size == config.model.hidden_size
    model = dataclasses.replace(
        config.model,
        vocab_size=11,
        hidden_size=8,
        embedding_size=8 if same_width else 4,
        num_hidden_layers=3,
        num_hidden_groups=min(config.model.num_hidden_groups, 2),
        num_attention_heads=2,
        intermediate_size=8,
        max_position_embeddings=9,
        max_relative_distance=2,
        expert_layers="all" if config.model.expert_layers == "all" else "3",
    )
    optimizer = dataclasses.replace(
        config.optimizer, num_train_steps=100, num_warmup_steps=10, learning_rate=0.1
    )
    data = DataConfig(
        sentence_objective=config.data.sentence_objective,
        max_seq_length=9,
        max_predictions_per_seq=6,
    )
    layers = config.objective.generator_layers
    objective = dataclasses.replace(
        config.objective, generator_layers=None if layers is None else min(layers, 2)
    )
    return ExperimentConfig(model=model, optimizer=optimizer, objective=objective, data=data)


@pytest.mark.slow
def test_every_structure_of_every_sweep_takes_a_step() -> None:
    """Compiled and run, for each that differs when it is shrunk."""
    shrunk = {
        repr(small): small
        for path in SWEEPS.values()
        for size in Size
        for small in map(shrink, (one.config for one in plan(str(path), size, {})))
    }
    assert len(shrunk) > 12
    mesh = make_mesh(devices=jax.devices()[:1])
    for config in shrunk.values():
        batch = random_batch(config.model, [[9], [4, 5]], 9, np.random.default_rng(0))
        model, objective = model_of(config), config.data.sentence_objective
        params = model.init(jax.random.key(0), jnp.zeros((1, 1), jnp.int32))["params"]
        optimizer = make_optimizer(config.optimizer, global_batch_size=2)
        state = create_train_state(params, optimizer)
        before = jax.device_get(params)
        task = objective_of(config, model)
        step = compile_train_step(
            task.loss_fn,
            optimizer,
            state,
            mesh,
            weight_fn=task.weight_fn,
            sampled_loss_fn=task.sampled_loss_fn,
        )
        key = jax.random.key(0)
        for _ in range(2):  # the first has the rate 0
            state, metrics = step(state, place_batch(batch, mesh), key)
        assert metrics["finite"].sum == 1
        moved = jax.tree.map(lambda a, b: not np.array_equal(a, b), before, state.params)
        still = [k for k, moves in flatten_dict(moved, sep="/").items() if not moves]
        head = {"sop_classifier", "albert/pooler"} if objective == "none" else set()
        assert {name.rpartition("/")[0] for name in still} <= head, config
        metric = {"sop": "sentence_order", "nsp": "next_sentence", "none": "masked_lm"}[objective]
        assert f"{metric}_loss" in metrics


def test_rows_of_a_grid_and_of_the_paper_s_tables() -> None:
    rows = grid({"data.ngram": [1, 2], "model.norm": ["pre"]}, {"2-pre": {"mnli": 80.0}})
    assert [row.name for row in rows] == ["1-pre", "2-pre"]
    assert rows[1].overrides == {"data.ngram": 2, "model.norm": "pre"}
    assert (rows[0].paper, rows[1].paper) == ({}, {"mnli": 80.0})
    scores = downstream("89.3/82.3", "80.0/77.1", 81.6, 90.3, 64.0, 80.1)
    assert (scores["squad_v1"], scores["squad_v1_exact"], scores["squad_v2"]) == (89.3, 82.3, 80.0)
    assert override_flags({"data.ngram": 1, "run.init_from": None}) == [
        "--config.data.ngram=1",
        "--config.run.init_from=none",
    ]


def test_a_row_starts_from_another_at_its_own_seed() -> None:
    rows = (SweepRow("a", {"seed": 1}), SweepRow("b", {}, starts_from="a"))
    sweep = Sweep("base.py", (SweepRow("a", {}), rows[1]), seeds=(3, 4))
    points = expand(sweep, Path("here"), {"data.ngram": 1})
    assert [point.after for point in points] == [None, None, 0, 1]
    assert points[3].overrides == {
        "data.ngram": 1,
        "seed": 4,
        "run.init_from": "here/points/a/seed_4",
    }
    assert [point.number for point in select(points, ["3", "1"])] == [1, 3]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rows": ()}, "the sweep is empty: it has no rows"),
        ({"seeds": ()}, "the sweep is empty: it has no seeds"),
        ({"rows": (SweepRow("a", {}), SweepRow("a", {}))}, "share a workdir: there are two 'a'"),
        ({"seeds": (1, 2, 1)}, "share a workdir: there are two 'seed 1'"),
        (
            {"rows": (SweepRow("a", {}, starts_from="b"), SweepRow("b", {}))},
            "must be a row before it",
        ),
    ],
)
def test_invalid_sweeps_are_rejected(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Sweep("base.py", **{"rows": (SweepRow("a", {}),)} | arguments)


def test_row_names_must_be_allowed_for_directories() -> None:
    for name in ("", "a/b", "..", "-x", "a b"):
        with pytest.raises(ValueError, match="a row's name is a directory's too"):
            SweepRow(name, {})


HEAD = "from experiments.sweeping import Size, Sweep, SweepRow\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"its get_sweep\(size\) must return a Sweep"),
        ("def get_sweep(size): return 3", r"its get_sweep\(size\) must return a Sweep"),
        ("def get_sweep(: ", "SyntaxError"),
        (f"{HEAD}def get_sweep(size): return Sweep('b', ())", "the sweep is empty"),
        (f"{HEAD}def get_sweep(size): return SweepRow('a', nothing)", "NameError: name 'nothing'"),
    ],
)
def test_files_without_a_sweep_are_rejected(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "mine.py"
    path.write_text(content)
    with pytest.raises(InputError, match=rf"^--sweep={path}: .*{message}"):
        load_sweep(str(path), Size.SMALL)


def test_mistakes_on_the_command_line_are_reported(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no such file .* mean --sweep=parameter_sharing\?"):
        load_sweep("parameter_sharin.py", Size.SMALL)
    with pytest.raises(InputError, match=r"^--override=data.ngram: must be NAME=VALUE"):
        parse_assignments("override", ["data.ngram"])
    base = str(ROOT / "experiments/configs/albert_tiny_cpu.py")
    sweep = Sweep(base, (SweepRow("a", {"data.ngram": 1}), SweepRow("b", {"data.ngram": 2})))
    with pytest.raises(InputError, match=r"--override=data.ngram=...: the points differ in it"):
        expand(sweep, tmp_path, {"data.ngram": "3"})
    points = expand(sweep, tmp_path, {})
    with pytest.raises(InputError, match="there is no point 7; they are numbered 0 to 1"):
        select(points, ["7"])
    with pytest.raises(InputError, match=r"--task_dir=snli=...: there is no task 'snli'"):
        plan_points(points, sweep, task_dirs={"snli": "."}, task_overrides={})
    for overrides, message in (
        ({"data.ngrm": 1}, r"there is no flag --config.data.ngrm; did you mean .*data.ngram\?"),
        ({"data.masking": "nothing"}, r"--config.data.masking must be one of"),
        ({"model.hidden_size": 129}, r"must be a multiple of num_attention_heads"),
    ):
        wrong = Sweep(base, (SweepRow("ok", {}), SweepRow("bad", overrides)))
        with pytest.raises(InputError, match=rf"^point 1 \(bad, seed 12345\): .*{message}"):
            plan_points(expand(wrong, tmp_path, {}), wrong, task_dirs={}, task_overrides={})
