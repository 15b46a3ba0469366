"""Imports point one way: what a room may know of the others."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

# Of the model's rooms, in the order in which they may import each other: none a later one.
ORDER = (
    ("config",),
    ("batch", "layers", "task_batches"),
    ("embeddings", "attention", "blocked_attention", "fused_attention"),
    ("attention_choice",),
    ("encoder", "heads", "span_head"),
    ("integrity", "checkpoint"),
    ("interop",),
    ("pretrained",),
    ("model", "flops", "schedule"),
    ("losses", "optimizer", "task_models"),
    ("train_step", "task_losses", "collectives"),
    ("parallel",),
    ("training_loop",),
)
# What no module of a package may import at its top, nor anything below that.
FORBIDDEN = {
    "albert_jax": ("data_pipeline", "experiments", "absl.flags", "tensorflow"),
    "data_pipeline": ("albert_jax", "experiments", "jax", "flax", "optax", "orbax"),
    "experiments": ("tests",),
}


def imports(path):
    """The modules that a file imports at its top."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute here"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("package", FORBIDDEN)
def test_no_room_knows_what_it_must_not(package):
    files = sorted(Path(package).rglob("*.py"))
    assert len(files) > 10
    for path in files:
        for module in imports(path):
            for forbidden in FORBIDDEN[package]:
                inside = module == forbidden or module.startswith(forbidden + ".")
                assert not inside, f"{path} imports {module}"


def test_the_model_is_a_staircase():
    level = {name: number for number, names in enumerate(ORDER) for name in names}
    root = Path("albert_jax")
    rooms = {
        path: path.relative_to(root).parts[0].removesuffix(".py")
        for path in root.rglob("[a-z]*.py")
    }
    assert set(rooms.values()) == set(level), "a new room needs a step on the staircase"
    for path, name in rooms.items():
        for module in imports(path):
            parts = module.split(".")
            if parts[0] == "albert_jax" and len(parts) > 1 and parts[1] in level:
                assert level[parts[1]] <= level[name], f"{path} imports {module}"
                assert parts[1] != name or path.parent != root


@pytest.mark.parametrize(
    ("statement", "heavy"),
    [
        (
            "from albert_jax import AlbertConfig, AlbertForMultipleChoice, read_pretrained",
            ["tensorflow", "orbax", "data_pipeline", "safetensors", "torch", "transformers"],
        ),
        ("import data_pipeline.tokenizer", ["tensorflow", "jax"]),
        ("from data_pipeline import AlbertTokenizer", ["tensorflow", "jax"]),
        ("import data_pipeline.config", ["tensorflow", "jax"]),
        (
            "from data_pipeline import glue, labeled_text, race, squad_answers, tagging",
            ["tensorflow", "jax"],
        ),
    ],
)
def test_what_is_promised_to_be_light_is_light(statement, heavy):
    code = f"{statement}; import sys; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
