"""Documents from the documentation in installed Python packages: English prose on any machine."""

import ast
import inspect
import os
import re
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path

from data_pipeline.errors import InputError
from data_pipeline.sources.text_files import InputFile

# Paragraphs with fewer words, or a smaller fraction of letters, are not prose.
_MIN_WORDS = 5
_MIN_LETTERS = 0.8

_TEXT_SUFFIXES = (".md", ".rst", ".txt")
_README = re.compile(r"^(readme|overview|tutorial|guide|changes|changelog|history)", re.IGNORECASE)
_MARKUP = re.compile(r"(?::[\w:.+-]+:)?`+~?([^`<]*?)(?:\s*<[^`>]*>)?`+_{0,2}")
_LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")
_BULLET = re.compile(r"^(?:[-*+•]|\d+[.)])\s+")
_FENCE = re.compile(r"^(?:```|~~~)")


def find_documented_files() -> list[InputFile]:
    """Find the Python files, READMEs and package descriptions of all packages, sorted by path.

    Raises:
        InputError: no package is installed.
    """
    roots = sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
    files = []
    for root in roots:
        for directory, subdirectories, names in os.walk(root):
            subdirectories[:] = sorted(set(subdirectories) - {"__pycache__", "tests", "test"})
            for name in sorted(names):
                path = Path(directory, name)
                if _is_documented(path) and path.is_file():  # not a dangling link
                    files.append(InputFile(str(path), path.stat().st_size, ""))
    files = [file for file in files if file.size]
    if not files:
        raise InputError(f"--format=docstrings: no packages are installed in {', '.join(roots)}")
    return files


def read_documentation(file: InputFile) -> list[list[str]]:
    """Read the documents of one file.

    Python code gives one document for the module, one for each top-level function, and one for each
    class with its methods. Other text is one document. Code, examples, tables and lists of names
    are left out. Files that cannot be parsed give no documents.
    """
    data = Path(file.name).read_bytes()
    if file.name.endswith(".py"):
        texts = _extract_docstrings(data)
    else:
        text = data.decode("utf-8", errors="replace").replace("\r\n", "\n")
        if Path(file.name).name == "METADATA":
            text = text.partition("\n\n")[2]
        texts = [[text]]
    documents = [[line for text in parts for line in extract_prose(text)] for parts in texts]
    return [document for document in documents if document]


def extract_prose(text: str) -> list[str]:
    """Extract the paragraphs of prose from a docstring, Markdown or reStructuredText.

    Example::

        Sorts ``x``
        in place.                      ->    Sorts x in place.

        >>> sort([2, 1])
        [1, 2]
    """
    paragraphs: list[list[str]] = []
    literal_indent: int | None = None  # of the paragraph that announced a literal block
    fenced = in_example = starts_new = False
    last_indent = 0
    for raw in text.expandtabs().split("\n"):
        line = raw.strip()
        indent = len(raw) - len(raw.lstrip())
        if _FENCE.match(line):
            fenced, line = not fenced, ""
        if not line:
            in_example, starts_new = False, True
            continue
        if literal_indent is not None and indent <= literal_indent and starts_new:
            literal_indent = None
        in_example = in_example or line.startswith((">>>", "$ ", "In ["))
        if fenced or in_example or (literal_indent is not None and starts_new):
            continue
        if not any(map(str.isalpha, line)) or line.startswith((".. ", "#", "|", "@")):
            starts_new = True
            continue
        # A hanging indent that ends starts the next entry of a list.
        if starts_new or not paragraphs or indent < last_indent or _BULLET.match(line):
            paragraphs.append([])
        paragraphs[-1].append(_BULLET.sub("", line))
        starts_new = line.endswith(":")  # a heading such as "Args:"
        last_indent = indent
        if line.endswith("::"):
            literal_indent = indent
    prose = (_strip_markup(" ".join(lines)) for lines in paragraphs)
    return [paragraph for paragraph in prose if _is_prose(paragraph)]


def _is_documented(path: Path) -> bool:
    if path.suffix == ".py" or path.name == "METADATA":
        return True
    return path.suffix in _TEXT_SUFFIXES and bool(_README.match(path.name))


def _extract_docstrings(source: bytes) -> list[list[str]]:
    if b'"""' not in source and b"'''" not in source:
        return []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about invalid escapes in other people's code
            module = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    top = [[text] if (text := _docstring(module)) else []]
    return [*top, *(list(_walk_definitions(node)) for node in module.body)]


def _walk_definitions(node: ast.stmt) -> Iterator[str]:
    """Yield the docstrings of a function, or of a class and its members, in order."""
    if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        if text := _docstring(node):
            yield text
        if isinstance(node, ast.ClassDef):
            for child in node.body:
                yield from _walk_definitions(child)


def _docstring(
    node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef,
) -> str | None:
    if not node.body or not isinstance(node.body[0], ast.Expr):
        return None
    value = node.body[0].value
    if not isinstance(value, ast.Constant) or not isinstance(value.value, str):
        return None
    # Source files can escape lone surrogates, which UTF-8 cannot represent.
    return inspect.cleandoc(value.value).encode("utf-8", "ignore").decode()


def _strip_markup(text: str) -> str:
    text = _LINK.sub(r"\1", _MARKUP.sub(r"\1", text))
    return re.sub(r"(\*\*|__)(?=\S)(.+?)(?<=\S)\1", r"\2", text).removesuffix("::").rstrip()


def _is_prose(text: str) -> bool:
    letters = sum(char.isalpha() or char == " " for char in text)
    return text.count(" ") >= _MIN_WORDS - 1 and letters >= _MIN_LETTERS * len(text)
