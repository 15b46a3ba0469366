"""The recipes of images: they copy what is there, and know the extras; a linter reads the first."""

import configparser
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

DOCKERFILE = Path("containers/Dockerfile")
APPTAINER = Path("containers/apptainer.def")
SECTIONS = {"arguments", "files", "post", "environment", "runscript", "test", "labels", "help"}
NEEDED = {
    *("albert_jax", "data_pipeline", "experiments"),
    *("setup.cfg", "pyproject.toml", "README.md", "LICENSE"),
}


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions with their arguments, in order."""
    lines = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(), flags=re.M)
    found = re.findall(r"^([A-Z]+) (.*)", lines.replace("\\\n", ""), re.M)
    return [(name, rest) for name, rest in found]


def apptainer_sections() -> dict[str, str]:
    _, *parts = re.split(r"^%(\w+)\n", APPTAINER.read_text(), flags=re.M)
    return dict(zip(parts[::2], parts[1::2], strict=True))


def extras() -> set[str]:
    setup = configparser.ConfigParser()
    setup.read("setup.cfg")
    return set(setup["options.extras_require"])


def test_a_dockerfile_copies_the_packages_and_ends_as_another_user() -> None:
    steps = instructions()
    copied = [shlex.split(rest)[:-1] for name, rest in steps if name == "COPY"]
    assert {source for sources in copied for source in sources} == NEEDED
    assert all(Path(source).exists() for source in NEEDED)
    assert [rest for name, rest in steps if name == "USER"] == ["1000"]
    names = [name for name, _ in steps]
    assert names.index("USER") > max(place for place, name in enumerate(names) if name == "RUN")


def test_the_context_of_a_build_is_what_is_copied() -> None:
    lines = Path(".dockerignore").read_text().splitlines()
    rules = [line for line in lines if not line.startswith("#")]
    assert rules[0] == "*" and rules[-1] == "**/__pycache__"
    assert {rule.removeprefix("!") for rule in rules[1:-1]} == NEEDED


def test_an_apptainer_recipe_has_known_sections_and_declares_its_arguments() -> None:
    sections = apptainer_sections()
    assert sections.keys() == SECTIONS
    text = APPTAINER.read_text()
    assert text.startswith("Bootstrap: docker\nFrom: ")
    used = set(re.findall(r"\{\{ (\w+) \}\}", text))
    assert used == set(re.findall(r"^ +(\w+)=", sections["arguments"], re.M))
    files = [line.split() for line in sections["files"].split("\n") if line.strip()]
    assert {source for source, _ in files} == NEEDED
    assert all(destination == f"/opt/albert-jax/{source}" for source, destination in files)


def test_both_have_the_same_defaults_and_extras_that_exist() -> None:
    defaults = dict(rest.split("=") for name, rest in instructions() if name == "ARG")
    arguments = apptainer_sections()["arguments"].split()
    assert dict(one.split("=") for one in arguments) == defaults
    described = re.search(r"# (.*), or cpu\.", DOCKERFILE.read_text())
    assert described and set(described[1].split(", ")) <= extras()
    assert defaults["DEVICE"] in extras()


@pytest.mark.interop
def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    found = subprocess.run([hadolint, DOCKERFILE], capture_output=True, text=True)
    assert (found.returncode, found.stdout + found.stderr) == (0, "")
