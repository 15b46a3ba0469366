"""Files that flags name by path, or by name if shipped with the package: configs and sweeps."""

import ast
import os
import traceback
from pathlib import Path

from albert_jax.settings import did_you_mean
from data_pipeline.errors import InputError

CONFIGS = Path(__file__).parents[1] / "configs"


def shipped_files(directory: Path) -> dict[str, Path]:
    """Return the Python files below a directory of the package by the names that flags accept.

    Example: ``{"albert_base": .../albert_base.py, "finetune/sst2": .../finetune/sst2.py}``
    """
    return {
        path.relative_to(directory).with_suffix("").as_posix(): path
        for path in sorted(directory.rglob("*.py"))
        if path.name != "__init__.py"
    }


def find_file(written: str, directory: Path) -> str:
    """Return the path of an existing file, or of the file below a directory that has this name.

    An existing path takes precedence over a name. Text that is neither is returned unchanged.
    """
    if os.path.isfile(written):  # unlike Path.is_file, raises nothing for a name that is too long
        return written
    return str(shipped_files(directory).get(written, written))


def format_names(directory: Path) -> str:
    """Return the names of the files below a directory, each with its docstring's first line."""
    files = shipped_files(directory)
    width = max(map(len, files))
    summaries = {
        name: (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")
        for name, path in files.items()
    }
    return "\n".join(f"{name:{width}}  {summary}" for name, (summary, _, _) in summaries.items())


def check_file(flag: str, written: str, directory: Path) -> None:
    """Check that the file that a flag names exists.

    Raises:
        InputError: it does not exist; the message names a similar file that does.
    """
    if os.path.isfile(find_file(written, directory)):
        return
    known = {name: f"--{flag}={name}" for name in shipped_files(directory)}
    short = {name.rpartition("/")[2]: meant for name, meant in known.items()}
    close = did_you_mean(Path(written).stem, short)
    raise InputError(
        f"--{flag}={written}: there is no such file or name (--list_{flag}s lists the names){close}"
    )


def failing_line(error: BaseException, path: str) -> str | None:
    """Return the line and the message of an error in a config file; None for an error elsewhere."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__ or error
    if isinstance(error, SyntaxError) and error.filename == path:
        return f"--config={path}: line {error.lineno}: {error.msg}"
    if isinstance(error, SyntaxError) and error.filename is None:  # a file with null bytes
        return f"--config={path}: {error.msg}"
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if frame.filename == path:
            message = " ".join(str(error).split())
            kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
            return f"--config={path}: line {frame.lineno}: {kind}{message}"
    return None
