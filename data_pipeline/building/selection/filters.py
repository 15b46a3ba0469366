"""Quality filters: user-defined functions that keep or reject a document, with their counts."""

import importlib
import inspect
import os
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from albert_jax.durable_files import hash_text
from albert_jax.settings import FieldError, did_you_mean
from data_pipeline.errors import InputError
from data_pipeline.sources.documents import Document

# Takes text and source name; returns True to keep, False or a short reason to reject.
FilterFunction = Callable[[str, str], bool | str]
# Filter -> reason -> documents.
Rejections = dict[str, dict[str, int]]

WITHOUT_REASON = "no reason given"  # for filters that return False
_LONGEST_REASON = 80  # characters
_MOST_REASONS = 100  # per filter: a reason names a rule, not a measurement
_SAMPLE = "A sentence of a sample, of no importance.\nIts second and last paragraph."
_SHOWN = 40  # characters of a document in a message


class DocumentFilter(NamedTuple):
    """A filter identified by its name; can be sent to worker processes.

    Attributes:
        name: module:function.
        sha256: SHA-256 of the source files of the module and of the function.
    """

    name: str
    sha256: str

    def load(self) -> FilterFunction:
        """Import the function.

        Raises:
            InputError: its source has changed since the build started.
        """
        function, sha256 = _import_filter(self.name)
        if sha256 != self.sha256:
            raise InputError(
                f"--filter={self.name}: its source was changed during the build; start it again"
            )
        return function


class FilterChain:
    """Filters applied one after another, with counts of what they rejected."""

    def __init__(self, filters: Iterable[DocumentFilter]) -> None:
        """Import the filters."""
        self._functions = {one.name: one.load() for one in filters}

    def select(
        self, documents: Sequence[Document], files: Sequence[str], source: str
    ) -> tuple[list[Document], Rejections]:
        """Return the documents that all filters keep, and the counts of the others.

        Args:
            documents: documents of one source.
            files: the file name of each document, for messages.
            source: the name of the source.

        Raises:
            InputError: a filter failed, or returned something other than a bool or a reason.
        """
        if not self._functions:
            return list(documents), {}
        kept = []
        counts: dict[str, Counter[str]] = {name: Counter() for name in self._functions}
        for document, file in zip(documents, files, strict=True):
            text = "\n".join(document)
            for name, function in self._functions.items():
                reason = _reject_reason(name, function, text, source, file)
                if reason is not None:
                    counts[name][reason] += 1
                    break
            else:
                kept.append(document)
        return kept, {name: dict(reasons) for name, reasons in counts.items()}


def check_filter_names(names: Sequence[str]) -> None:
    """Check the form of the names of filters.

    Raises:
        FieldError: a name is not module:function, or occurs twice.
    """
    allowed = "module:function, each given once"
    for name in names:
        module, _, function = name.partition(":")
        if not (function.isidentifier() and all(map(str.isidentifier, module.split(".")))):
            raise FieldError("filter", allowed, name)
        if names.count(name) > 1:
            raise FieldError("filter", allowed, name)


def find_filters(names: Iterable[str], source: str) -> tuple[DocumentFilter, ...]:
    """Import filters, and try each one on a sample.

    Args:
        names: module:function of each filter, on PYTHONPATH or in the working directory.
        source: the name of a source, passed along with the sample.

    Raises:
        InputError: a filter cannot be imported, takes other arguments, or fails.
    """
    filters = []
    for name in names:
        function, sha256 = _import_filter(name)
        _check_signature(name, function)
        _reject_reason(name, function, _SAMPLE, source, "the sample that it is tried on")
        filters.append(DocumentFilter(name, sha256))
    return tuple(filters)


def add_rejections(total: Rejections, more: Rejections) -> None:
    """Add counts to a total, in place.

    Raises:
        InputError: a filter has too many different reasons.
    """
    for name, reasons in more.items():
        counts = total.setdefault(name, {})
        for reason, documents in reasons.items():
            counts[reason] = counts.get(reason, 0) + documents
        if len(counts) > _MOST_REASONS:
            raise InputError(
                f"--filter={name}: it gives more than {_MOST_REASONS} different reasons, such as "
                f"{reason!r}; a reason names a rule, and not what was measured"
            )


def format_rejections(rejected: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Return a line per filter: documents it rejected, by reason, most frequent reason first."""
    lines = []
    for name, reasons in rejected.items():
        ranked = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
        listed = ", ".join(f"{reason} {documents:,}" for reason, documents in ranked)
        total = f"rejected by {name}: {sum(reasons.values()):,} documents"
        lines.append(f"{total} ({listed})" if listed else total)
    return lines


def _reject_reason(
    name: str, function: FilterFunction, text: str, source: str, file: str
) -> str | None:
    """Return why a filter rejects a text, or None if it keeps the text."""
    try:
        verdict = function(text, source)
    except (Exception, SystemExit) as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        what = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(
            f"--filter={name} failed on {_describe(file, text)}: {what} "
            f"({Path(place.filename).name}:{place.lineno})"
        ) from error
    if isinstance(verdict, bool | np.bool_):
        return None if verdict else WITHOUT_REASON
    if isinstance(verdict, str) and verdict.isprintable() and 0 < len(verdict) <= _LONGEST_REASON:
        return verdict
    shown = repr(verdict)[: _LONGEST_REASON + 2]
    raise InputError(
        f"--filter={name} must return True to keep a document, False or a reason of at most "
        f"{_LONGEST_REASON} characters to reject it, and returned {shown} for "
        f"{_describe(file, text)}"
    )


def _describe(file: str, text: str) -> str:
    if text is _SAMPLE:
        return file
    return f"a document of {file} that begins {text[:_SHOWN]!r}"


def _import_filter(name: str) -> tuple[FilterFunction, str]:
    """Return the function with a given name, and the hash of its source."""
    module_name, _, function_name = name.partition(":")
    if os.getcwd() not in sys.path and "" not in sys.path:  # the case in a console script
        sys.path.append(os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise InputError(
            f"--filter={name}: there is no module {error.name} on PYTHONPATH or in the working "
            "directory"
        ) from error
    except (Exception, SystemExit) as error:
        what = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(f"--filter={name}: {module_name} cannot be imported: {what}") from error
    function = getattr(module, function_name, None)
    if not callable(function):
        functions = [one for one, value in vars(module).items() if inspect.isfunction(value)]
        close = did_you_mean(function_name, functions)
        problem = "is no function" if hasattr(module, function_name) else "does not exist"
        raise InputError(f"--filter={name}: {function_name} {problem} in {module_name}{close}")
    return function, _hash_source(name, module, function)


def _hash_source(name: str, module: ModuleType, function: Any) -> str:
    files = {getattr(module, "__file__", None)}
    if (code := getattr(inspect.unwrap(function), "__code__", None)) is not None:
        files.add(code.co_filename)
    try:
        contents = [Path(file).read_bytes().hex() for file in sorted(filter(None, files))]
    except OSError:
        contents = []
    if not contents:
        raise InputError(
            f"--filter={name}: its source is in no file, so that a changed filter could not be "
            "noticed; write it into a module"
        )
    return hash_text("\n".join(contents))


def _check_signature(name: str, function: FilterFunction) -> None:
    try:
        signature = inspect.signature(function)
    except ValueError:  # a function written in C: the sample shows whether its arguments fit
        return
    try:
        signature.bind("text", "source")
    except TypeError:
        raise InputError(
            f"--filter={name} must take the text of a document and the name of its source, "
            f"(text, source), and takes {signature}"
        ) from None
