"""The documents: every command and every Python block runs, every name in them exists."""

import ast
import configparser
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from absl import flags
from documents import LANGUAGES, PAGES, Command, all_commands, read_blocks, without_blocks
from sandbox import CommandServer, Sandbox

from albert_jax.settings import all_settings
from experiments.cli.config_flag import define_config_flag, parse_flags, read_config_flag
from experiments.run.config import ExperimentConfig
from experiments.tasks.config import FinetuneConfig

# How a command is checked, by its beginning; one that fits none makes the tests fail.
MODULE = r"(?P<environment>(\w+=\S+ )*)python -m (?P<module>(data_pipeline|experiments)\.\w+)\b"
KINDS = {
    # On machines that are not available here: flags are checked.
    "launched": r"srun |gcloud |.* --coordinator_address=",
    "launch": r"(\w+=\S+ )*(sbatch|kubectl|experiments/launch/)",  # files and flags are checked
    "run": MODULE,
    "flags": r"--config\.",  # to be appended to a command
    "make": r"make ",
    "install": r"pip install ",
    "campaign": r"python -m tests\.campaigns\.\w+",  # hours: run by `make test-campaigns`
    "elsewhere": r"(hf download|tensorboard|git|docker|apptainer) ",  # other projects' commands
}
COMMANDS = all_commands()


def kind_of(command: Command) -> str | None:
    return next((kind for kind, start in KINDS.items() if re.match(start, command.text)), None)


def commands(*kinds: str, slow: bool = False) -> pytest.MarkDecorator:
    """Parametrize with the commands of some kinds; `slow` marks those outside the README so."""
    found = {one.text: one for one in reversed(COMMANDS) if kind_of(one) in kinds}

    def marks(command: Command) -> list[pytest.MarkDecorator]:
        if not slow:
            return []
        torch = [pytest.mark.interop] if "experiments.distillation" in command.text else []
        return [*torch, *([] if command.name.startswith("README") else [pytest.mark.slow])]

    cases = [pytest.param(one, id=one.name, marks=marks(one)) for one in found.values()]
    return pytest.mark.parametrize("command", cases[::-1])


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    server = CommandServer()
    yield Sandbox(tmp_path_factory.mktemp("documents"), server)
    server.close()


def test_every_command_is_of_a_kind_that_is_checked() -> None:
    assert [one for one in COMMANDS if kind_of(one) is None] == []
    assert len(COMMANDS) > 20


def test_every_block_names_its_language() -> None:
    for page in PAGES:
        for block in read_blocks(page):
            assert block.language in LANGUAGES, f"{page}:{block.line}"
        indented = re.findall(r"(?<=\n\n) {4}\S.*", without_blocks(page))
        assert not indented, f"{page}: code stands in fences, not indented: {indented[0]}"


def arguments_of(command: Command) -> list[str]:
    """Return module, flags and values; a command that another one launches may be in quotes."""
    pattern = r"python -m ([^\"]+)" if kind_of(command) == "launched" else r"python -m (.+)"
    found = re.search(pattern, command.text.partition(" | ")[0])
    assert found is not None
    return shlex.split(found[1])


@commands("run", slow=True)
def test_commands_run(command: Command, sandbox: Sandbox) -> None:
    match = re.match(MODULE, command.text)
    assert match is not None
    environment = dict(one.split("=", 1) for one in match["environment"].split())
    sandbox.run(arguments_of(command), **environment)


@commands("run", "launched")
def test_commands_have_valid_flags(command: Command, sandbox: Sandbox) -> None:
    module, *arguments = arguments_of(command)
    if module.startswith("experiments."):
        sandbox.run([module, *arguments], parse_only=True)


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")  # of ml_collections
@commands("flags")
def test_flags_have_names_and_values_that_exist(command: Command) -> None:
    kinds = {"albert_base_v1": ExperimentConfig, "finetune/squad_v2": FinetuneConfig}
    errors = []
    for name, kind in kinds.items():
        config = f"--config=experiments/configs/{name}.py"
        argv = ["command", config, *shlex.split(command.text)]
        try:
            read_flags(argv, kind)
        except Exception as error:
            errors.append(error)
    assert len(errors) < len(kinds), errors


def read_flags(argv: list[str], kind: type[ExperimentConfig] | type[FinetuneConfig]) -> None:
    values = flags.FlagValues()
    flag = define_config_flag(values, argv)
    parse_flags(argv, values, config_kind=kind)
    read_config_flag(flag, kind)


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")  # of ml_collections
@commands("launch")
def test_launch_files_are_there_and_flags_exist(command: Command) -> None:
    (name,) = re.findall(r"experiments/launch/[\w.]+", command.text)
    launched = Path(name).read_text()
    for variable in re.findall(r"\b([A-Z]+)=", command.text):
        assert f"{variable}=${{{variable}:" in launched, variable
    given = re.findall(r"--config\.\S+", command.text)
    argv = ["command", "--config=experiments/configs/albert_base_packed.py", *given]
    read_flags(argv, ExperimentConfig)


@commands("make")
def test_make_knows_the_targets(command: Command) -> None:
    subprocess.run(["make", "-n", *command.text.split()[1:]], check=True, capture_output=True)


@commands("install")
def test_extras_exist(command: Command) -> None:
    setup = configparser.ConfigParser()
    setup.read("setup.cfg")
    for extras in re.findall(r"\.\[(.*?)\]", command.text):
        assert set(extras.split(",")) <= set(setup["options.extras_require"]), command.text


def python_pages(*, torch: bool) -> list[Path]:
    """Pages with Python, those that need torch or the others."""

    def needs_torch(page: Path) -> bool:
        return any("transformers import" in code for code in python_of(page))

    return [page for page in PAGES if python_of(page) and (torch is False or needs_torch(page))]


def python_of(page: Path) -> list[str]:
    return [block.code for block in read_blocks(page) if block.language == "python"]


def run_python(page: Path, blocks: list[str], sandbox: Sandbox, directory: Path) -> None:
    program = directory / f"{page.stem}.py"
    program.write_text("\n".join(blocks))
    sandbox.provide(program.read_text())
    sandbox.run([str(program)])


@pytest.mark.parametrize("page", python_pages(torch=False), ids=str)
def test_python_runs_from_top_to_bottom(page: Path, sandbox: Sandbox, tmp_path: Path) -> None:
    blocks = [code for code in python_of(page) if "transformers import" not in code]
    run_python(page, blocks, sandbox, tmp_path)


@pytest.mark.interop
@pytest.mark.parametrize("page", python_pages(torch=True), ids=str)
def test_python_with_transformers_runs(page: Path, sandbox: Sandbox, tmp_path: Path) -> None:
    run_python(page, python_of(page), sandbox, tmp_path)


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_links_and_files_exist(page: Path) -> None:
    text = without_blocks(page)
    for link, anchor in re.findall(r"\]\(([^)#]*)#?([^)]*)\)", text):
        if not link.startswith("http"):
            target = page.parent / link if link else page
            assert target.exists(), link
            assert not anchor or anchor in anchors_of(target), f"{link}#{anchor}"
    if page.name == "CHANGELOG.md":  # names files of the past too
        return
    for name in re.findall(
        r"`((?:albert_jax|data_pipeline|experiments|tests|docs)/[^\s`*{<]+)`", text
    ):
        assert Path(name).exists(), name


def anchors_of(page: Path) -> set[str]:
    """Return the anchors that GitHub gives to a page's headings."""
    headings = re.findall(r"^#+ (.+)$", without_blocks(page), re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.replace(" ", "-") for heading in plain}


def test_readme_is_short() -> None:
    assert len(Path("README.md").read_text().splitlines()) <= 150


def describe_folders() -> str:
    """Return the table of docs/rooms.md: each folder with the first sentence of its docstring."""
    lines = []
    for package in ("albert_jax", "data_pipeline", "experiments"):
        for path in sorted(Path(package).rglob("__init__.py")):
            docstring = ast.get_docstring(ast.parse(path.read_text())) or ""
            sentence = " ".join(docstring.split("\n\n")[0].split())
            lines.append(f"| `{path.parent}` | {sentence} |")
    return "\n".join(lines)


def test_rooms_are_described_as_the_folders_describe_themselves() -> None:
    assert describe_folders() in Path("docs/rooms.md").read_text(), describe_folders()


@pytest.mark.parametrize(
    ("heading", "most"), [("From document to checkpoint", 15), ("From flag to layer", 5)]
)
def test_walks_are_short(heading: str, most: int) -> None:
    section = Path("docs/training.md").read_text().partition(f"## {heading}\n")[2]
    steps = re.findall(r"^\d+\. `(\S+)`", section.partition("\n## ")[0], re.M)
    assert 3 < len(steps) <= most
    assert all(Path(step).is_file() for step in steps)


def string_literals() -> list[str]:
    """Return the texts in the code, with ... for what is filled in."""
    texts = []
    for package in ("albert_jax", "data_pipeline", "experiments"):
        for path in Path(package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.JoinedStr):
                    parts = (getattr(part, "value", "...") for part in node.values)
                    texts.append("".join(p if isinstance(p, str) else "..." for p in parts))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    texts.append(node.value)
    return texts


def test_messages_are_those_of_the_code() -> None:
    rows = re.findall(r"^\| `(.+?)` \|", Path("docs/troubleshooting.md").read_text(), re.M)
    assert len(rows) > 10
    texts = string_literals()
    for message in rows:
        parts = [re.escape(part) for part in re.split(r"\s*\.{3,}\s*", message) if part]
        pattern = re.compile(r".*".join(parts), re.S)
        assert any(pattern.search(text) for text in texts), message


def test_settings_that_are_named_exist() -> None:
    known = {one.name for kind in (ExperimentConfig, FinetuneConfig) for one in all_settings(kind)}
    for page in PAGES:
        for name in re.findall(r"--config\.([a-z_0-9]+(?:\.[a-z_0-9]+)*)", page.read_text()):
            assert any(f"{one}.".startswith(f"{name}.") for one in known), f"{page}: {name}"


def test_citation_and_hooks_are_readable() -> None:
    assert yaml.safe_load(Path("CITATION.cff").read_text())["license"] == "Apache-2.0"
    hooks = yaml.safe_load(Path(".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    lint = subprocess.run(["make", "-n", "lint"], check=True, capture_output=True, text=True)
    for hook in hooks:
        command = hook["entry"].removesuffix(" --fix")
        assert command in lint.stdout, f"{command} is not what `make lint` runs"
