"""Imports point one way: between files, between folders, and between the packages."""

import ast
import graphlib
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# The rooms of each package, a file or a folder, in the order in which they may import each other:
# none a later one. A folder inside a folder is a room too, and named by its path.
ORDER = {
    "albert_jax": (
        *(
            "settings",
            "lazy_exports",
            "durable_files",
            "input_files",
            "config",
            "batch",
            "matmuls",
            "layers",
            "positions",
            "attention",
            "fused_layers",
            "encoder",
            "decoder",
            "heads",
        ),
        *("devices", "training", "training/checkpoint", "interop", "interop/encoder_decoder"),
        *("pretrained", "model", "tasks/distillation", "tasks", "tasks/replaced_tokens"),
        *("generation", "exporting"),
    ),
    "data_pipeline": (
        *("errors", "terminal", "cache", "verification", "memory_maps", "batch_iterator"),
        *("config", "remote", "locks", "randomness", "sources"),
        *("tokenizers", "tokenizers/targets", "corpus"),
        *("building/selection", "building/splits", "building", "building/beam"),
        *("planning", "pretraining"),
        *("finetuning", "finetuning/squad", "finetuning/similarity", "generation"),
        *("build_flags", "build_corpus"),
    ),
    "experiments": (
        *(
            "cli",
            "launching",
            "hosts",
            "metrics",
            "metrics/trackers",
            "goodput",
            "pages",
            "run/config",
            "run",
            "distillation",
            "evaluation",
            "tasks",
            "finetuning",
            "finetuning/glue",
            "prediction",
        ),
        *("converting", "benchmarks", "benchmarks/accelerator", "compiling"),
        *("sweeping", "configs", "configs/finetune", "sweeps"),
        *("pretrain", "evaluate", "finetune", "predict", "convert", "benchmark", "sweep", "glue"),
        *("probe", "export_records", "import_records", "compile"),
    ),
}
# What no module of a package may import at its top, nor anything below that.
FORBIDDEN = {
    "albert_jax": ("data_pipeline", "experiments", "absl.flags", "tensorflow"),
    "data_pipeline": ("albert_jax", "experiments", "jax", "flax", "optax", "orbax"),
    "experiments": ("tests",),
}
# The exceptions: files without JAX that all packages use.
ALLOWED = {
    "data_pipeline": (
        "albert_jax.settings",
        "albert_jax.lazy_exports",
        "albert_jax.durable_files",
        "albert_jax.interop.hub",
        "albert_jax.input_files",  # one reader of JSON for all
    )
}


def python_files(package: str) -> list[Path]:
    files = sorted(Path(package).rglob("[a-z]*.py"))
    assert len(files) > 10
    return files


def imports(path: Path) -> Iterator[str]:
    """The modules that a file imports at its top."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{path}: imports are absolute here"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imported_files(path: Path) -> set[Path]:
    """The project's files that a file imports, packages standing for their ``__init__.py``."""
    found = set()
    for module in imports(path):
        place = Path(*module.split("."))
        for file in (place.with_suffix(".py"), place / "__init__.py"):
            if file.is_file():
                found.add(file)
    return found - {path}


def room(path: Path) -> str:
    """Where a file belongs: its folder below the package, or itself."""
    folders = path.parent.parts[1:]
    return "/".join(folders) if folders else path.stem


@pytest.mark.parametrize("package", FORBIDDEN)
def test_no_package_imports_what_it_must_not(package: str) -> None:
    for path in Path(package).rglob("*.py"):
        for module in imports(path):
            if module.startswith(ALLOWED.get(package, ("-",))):
                continue
            for forbidden in FORBIDDEN[package]:
                inside = module == forbidden or module.startswith(forbidden + ".")
                assert not inside, f"{path} imports {module}"


@pytest.mark.parametrize("package", ORDER)
def test_rooms_import_only_what_stands_before_them(package: str) -> None:
    order = {name: number for number, name in enumerate(ORDER[package])}
    files = python_files(package)
    assert {room(path) for path in files} == set(order), "a new room needs a place in ORDER"
    for path in files:
        for other in imported_files(path):
            if other.parts[0] == package and other.name != "__init__.py":
                assert order[room(other)] <= order[room(path)], f"{path} imports {other}"


def test_a_folder_holds_few_files_and_says_what_for() -> None:
    """Files of data (configs, sweeps) are as many as there are experiments."""
    folders = {path.parent for package in ORDER for path in Path(package).rglob("[a-z]*.py")}
    for folder in folders:
        docstring = ast.get_docstring(ast.parse((folder / "__init__.py").read_text()))
        assert docstring and docstring.splitlines()[0].endswith("."), folder
        if not {"configs", "sweeps"} & set(folder.parts):
            assert 4 <= len(list(folder.glob("[a-z]*.py"))) <= 12, folder


def test_every_exported_name_is_there() -> None:
    for init in (path for package in ORDER for path in Path(package).rglob("__init__.py")):
        package = importlib.import_module(".".join(init.parent.parts))
        for name in getattr(package, "__all__", ()):
            assert getattr(package, name) is not None, f"{package.__name__}.{name}"


def test_no_file_imports_itself_by_way_of_others() -> None:
    files = [path for package in ORDER for path in Path(package).rglob("*.py")]
    graph = {path: imported_files(path) for path in files}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(f"a circle: {' <- '.join(map(str, error.args[1]))}")


@pytest.mark.parametrize(
    ("statement", "heavy"),
    [
        (
            "from albert_jax import AlbertConfig, AlbertForMultipleChoice, read_pretrained",
            ["tensorflow", "orbax", "data_pipeline", "safetensors", "torch", "transformers"],
        ),
        ("import data_pipeline.tokenizers.tokenizer", ["tensorflow", "jax"]),
        ("from data_pipeline import AlbertTokenizer", ["tensorflow", "jax"]),
        ("import data_pipeline.config", ["tensorflow", "jax"]),
        (
            "from data_pipeline.finetuning import glue, labeled_text, race, tagging; "
            "from data_pipeline.finetuning.squad import answers",
            ["tensorflow", "jax"],
        ),
    ],
)
def test_what_is_promised_to_be_light_is_light(statement: str, heavy: list[str]) -> None:
    code = f"{statement}; import sys; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
