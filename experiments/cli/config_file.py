"""The file that ``--config`` names: which there are, and where one failed."""

import os
import traceback
from pathlib import Path

from albert_jax.settings import did_you_mean
from data_pipeline.errors import InputError

CONFIGS = Path(__file__).parents[1] / "configs"


def check_config_file(path: str) -> None:
    """Check that a config file exists.

    Raises:
        InputError: it does not; the message names one that does.
    """
    if os.path.isfile(path):  # unlike Path's, also for a name that is too long
        return
    known = {
        file.name: f"experiments/configs/{file.relative_to(CONFIGS)}"
        for file in sorted(CONFIGS.rglob("*.py"))
        if file.name != "__init__.py"
    }
    raise InputError(
        f"--config={path}: there is no such file{did_you_mean(Path(path).name, known)}"
    )


def failing_line(error: BaseException, path: str) -> str | None:
    """Return the line and the message of an error in a config file; None for an error elsewhere."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__ or error
    if isinstance(error, SyntaxError) and error.filename == path:
        return f"--config={path}: line {error.lineno}: {error.msg}"
    if isinstance(error, SyntaxError) and error.filename is None:  # of a file with zero bytes
        return f"--config={path}: {error.msg}"
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if frame.filename == path:
            message = " ".join(str(error).split())
            kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
            return f"--config={path}: line {frame.lineno}: {kind}{message}"
    return None
