"""The flags of `data_pipeline.build_corpus`, and the build that they describe."""

import math
import os
import re
from collections.abc import Sequence

from absl import flags

from data_pipeline.corpus.build_config import BuildConfig
from data_pipeline.errors import InputError
from data_pipeline.sources.documents import FileEnd, Source, SourceFormat
from data_pipeline.sources.text_files import EncodingErrors

# Not absl's own, so that importing this file defines no flags for other commands.
FLAGS = flags.FlagValues()

_FORMATS = list(SourceFormat)
_INPUT = flags.DEFINE_multi_string(
    "input",
    [],
    "Glob of text files (plain, .gz, .xz, .bz2 or .zst; local, gs:// or s3://), or the name of a "
    "TFDS data set. May be repeated, or hold several separated by commas.",
    flag_values=FLAGS,
)
_FORMAT = flags.DEFINE_enum(
    "format",
    None,
    _FORMATS,
    "text: a paragraph a line, blank lines between documents. sentences: a sentence a line, blank "
    "lines between documents. jsonl, parquet: a document a record. wikiextractor: <doc> blocks or "
    "JSON. tfds: a prepared TensorFlow data set. docstrings: the documentation in the installed "
    "Python packages, which needs no --input.",
    flag_values=FLAGS,
)
_SOURCE = flags.DEFINE_multi_string(
    "source",
    [],
    "NAME:WEIGHT:FORMAT:INPUT, instead of --input and --format, once for each of several sources "
    "in one corpus. An epoch reads a source of weight 2 twice as often as one of weight 1.",
    flag_values=FLAGS,
)
OUTPUT_DIR = flags.DEFINE_string(
    "output_dir", None, "Directory of the new corpus; may be remote.", flag_values=FLAGS
)
_OVERWRITE = flags.DEFINE_bool(
    "overwrite",
    False,
    "Replace a corpus at --output_dir, once the new one is whole.",
    flag_values=FLAGS,
)
_TOKENIZER = flags.DEFINE_string(
    "tokenizer",
    None,
    "An existing vocabulary: a SentencePiece .model, a WordPiece .txt, or the tokenizer of a "
    "corpus. Without it a SentencePiece vocabulary is trained.",
    flag_values=FLAGS,
)
_VOCAB_SIZE = flags.DEFINE_integer(
    "vocab_size", 30_000, "Pieces of a vocabulary to train.", flag_values=FLAGS
)
_VOCABULARY_BYTES = flags.DEFINE_integer(
    "vocabulary_bytes",
    1 << 30,
    "How much text to train a vocabulary on, in bytes: documents drawn at random beyond that. "
    "Training holds all of it in memory several times over.",
    flag_values=FLAGS,
)
_LOWER_CASE = flags.DEFINE_bool(
    "lower_case",
    None,
    "Drop case, as the released English models do. By default what --tokenizer says, else true.",
    flag_values=FLAGS,
)
_KEEP_ACCENTS = flags.DEFINE_bool(
    "keep_accents",
    None,
    "Keep accents, which the released English models drop. By default what --tokenizer says, else "
    "false.",
    flag_values=FLAGS,
)
_LANGUAGE = flags.DEFINE_string(
    "language", "en", "ISO code of the language, by which sentences are split.", flag_values=FLAGS
)
_TEXT_COLUMN = flags.DEFINE_string(
    "text_column",
    "text",
    "The field of jsonl, wikiextractor JSON, parquet and tfds records that holds the text.",
    flag_values=FLAGS,
)
_TFDS_DATA_DIR = flags.DEFINE_string(
    "tfds_data_dir",
    None,
    "Where TFDS data sets are prepared, if not where TFDS looks by itself.",
    flag_values=FLAGS,
)
_FILE_END = flags.DEFINE_enum(
    "file_end",
    FileEnd.ENDS_DOCUMENT,
    list(FileEnd),
    "Whether the end of a text or sentences file ends the document, or the next file continues it, "
    "as in the released generator.",
    flag_values=FLAGS,
)
_ENCODING_ERRORS = flags.DEFINE_enum(
    "encoding_errors",
    EncodingErrors.REFUSE,
    list(EncodingErrors),
    "What to do about a line that is not UTF-8: end with its number, put replacement signs, or "
    "skip it. The report counts them.",
    flag_values=FLAGS,
)
_HELD_OUT = flags.DEFINE_float(
    "held_out",
    0.01,
    "Share of the documents, chosen by a hash of their text, that are kept for validation.",
    flag_values=FLAGS,
)
SEED = flags.DEFINE_integer(
    "seed", 0, "Of the sentences that a vocabulary is trained on.", flag_values=FLAGS
)
_NUM_PROCESSES = flags.DEFINE_integer(
    "num_processes",
    0,
    "Processes that split and encode; 0 means one a core. The corpus does not depend on it.",
    flag_values=FLAGS,
)
INSPECT = flags.DEFINE_bool(
    "inspect",
    False,
    "Build nothing: print the first batch of the corpus at --output_dir, with its pairs, swaps and "
    "masks.",
    flag_values=FLAGS,
)
HELP = flags.DEFINE_bool("help", False, "Show this help.", short_name="h", flag_values=FLAGS)


def parse_flags(argv: Sequence[str]) -> list[str]:
    """Parses a command line, forgetting any before it; returns what is left of it.

    Raises:
        absl.flags.Error: a flag is unknown or has a wrong value.
    """
    for name in FLAGS:
        FLAGS[name].unparse()
    return FLAGS(list(argv))


def read_flags() -> BuildConfig:
    """The build that the flags describe.

    Raises:
        InputError: a flag is missing or out of range, or two do not go together.
    """
    output_dir = read_output_dir()
    if not 0 <= _HELD_OUT.value < 1:
        raise InputError(f"--held_out must be at least 0 and less than 1, got {_HELD_OUT.value}")
    if not re.fullmatch(r"[a-z]{2,3}(-\w+)?", _LANGUAGE.value):
        raise InputError(f"--language must be an ISO code such as en, got {_LANGUAGE.value!r}")
    for flag, lowest in ((_VOCAB_SIZE, 14), (_VOCABULARY_BYTES, 1), (_NUM_PROCESSES, 0)):
        if flag.value < lowest:
            raise InputError(f"--{flag.name} must be at least {lowest}, got {flag.value}")
    sources = _read_sources()
    return BuildConfig(
        sources=sources,
        output_dir=output_dir,
        vocab_size=_VOCAB_SIZE.value,
        tokenizer=_TOKENIZER.value,
        language=_LANGUAGE.value,
        lower_case=_LOWER_CASE.value,
        keep_accents=_KEEP_ACCENTS.value,
        held_out=_HELD_OUT.value,
        vocabulary_bytes=_VOCABULARY_BYTES.value,
        seed=SEED.value,
        num_processes=_NUM_PROCESSES.value or available_cores(),
        overwrite=_OVERWRITE.value,
    )


def available_cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on every system
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def read_output_dir() -> str:
    """The corpus directory that was named.

    Raises:
        InputError: none was.
    """
    if not OUTPUT_DIR.value:
        raise InputError("--output_dir is missing: the directory of the corpus")
    return OUTPUT_DIR.value


def _read_sources() -> tuple[Source, ...]:
    if _SOURCE.value:
        if _INPUT.value or _FORMAT.value:
            raise InputError("--source takes the place of --input and --format: give one or other")
        sources = tuple(map(parse_source, _SOURCE.value))
    else:
        if not _FORMAT.value:
            raise InputError(f"--format is missing; it may be {', '.join(_FORMATS)}")
        patterns = tuple(part for value in _INPUT.value for part in value.split(",") if part)
        sources = (_make_source(_FORMAT.value, 1.0, _FORMAT.value, patterns),)
    names = [source.name for source in sources]
    if len(names) > 256:
        raise InputError(f"--source may be given 256 times, got {len(names)}")
    if repeated := [name for name in names if names.count(name) > 1]:
        raise InputError(f"--source: the name {repeated[0]!r} is given twice")
    return sources


def parse_source(text: str) -> Source:
    """Reads NAME:WEIGHT:FORMAT:INPUT.

    Example: `books:2:text:books/*.txt.gz`.

    Raises:
        InputError: it is not of that form.
    """
    name, *rest = text.split(":", 3)
    if len(rest) < 2 or not name:
        raise InputError(f"--source must be NAME:WEIGHT:FORMAT:INPUT, got {text!r}")
    try:
        weight = float(rest[0])
    except ValueError:
        weight = math.nan
    if not 0 < weight < math.inf:
        raise InputError(f"--source={text}: the weight must be a positive number, got {rest[0]!r}")
    if rest[1] not in _FORMATS:
        raise InputError(
            f"--source={text}: the format must be one of {', '.join(_FORMATS)}, got {rest[1]!r}"
        )
    patterns = tuple(part for part in "".join(rest[2:]).split(",") if part)
    return _make_source(name, weight, rest[1], patterns)


def _make_source(name: str, weight: float, format: str, patterns: tuple[str, ...]) -> Source:
    needs_input = format != SourceFormat.DOCSTRINGS
    if needs_input != bool(patterns):
        what = "needs input files" if needs_input else "takes no --input"
        raise InputError(f"--format={format} {what}")
    return Source(
        name=name,
        format=SourceFormat(format),
        inputs=patterns,
        weight=weight,
        text_column=_TEXT_COLUMN.value,
        encoding_errors=EncodingErrors(_ENCODING_ERRORS.value),
        file_end=FileEnd(_FILE_END.value),
        tfds_data_dir=_TFDS_DATA_DIR.value,
    )
