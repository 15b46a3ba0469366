"""The README's tree is the tree that is there, each file with the first line of its docstring."""

import ast
import re
from pathlib import Path

PACKAGES = ("albert_jax", "albert_jax/interop", "data_pipeline", "experiments")


def draw_tree() -> str:
    lines = []
    for package in PACKAGES:
        lines.append(f"{package}/")
        for path in sorted(Path(package).glob("[a-z]*.py")):
            sentence = ast.get_docstring(ast.parse(path.read_text())).split("\n\n")[0]
            lines.append(f"  {path.name:27} {' '.join(sentence.split())}")
    return "\n".join(lines)


def test_the_tree_is_as_it_is_drawn():
    (drawn,) = re.findall(r"```\n(albert_jax/\n.*?)\n```", Path("README.md").read_text(), re.S)
    assert drawn == draw_tree(), f"put this into README.md:\n{draw_tree()}"
