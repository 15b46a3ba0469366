"""Flags of `data_pipeline.build_corpus`, made from dataclasses, and the build they describe."""

import dataclasses
import math
import re
from typing import Any

from absl import flags

from albert_jax.settings import FieldError, own_settings, setting
from data_pipeline.building.beam.options import EngineConfig
from data_pipeline.building.config import BuildConfig
from data_pipeline.config import DataConfig
from data_pipeline.errors import InputError
from data_pipeline.planning.plan import PLANNED_SETTINGS
from data_pipeline.sources.documents import FileEnd, Source, SourceFormat
from data_pipeline.sources.text_files import EncodingErrors

_FORMATS = list(SourceFormat)
_MOST_SOURCES = 256  # the source of a document is stored in one byte


@dataclasses.dataclass(frozen=True)
class SourceFlags:
    """Flags that describe the sources of a corpus."""

    input: tuple[str, ...] = setting(
        (),
        "Glob of text files (plain, .gz, .xz, .bz2 or .zst; local, gs:// or s3://), the name of a "
        "TFDS data set, or the directory or name of a Hugging Face data set. May be repeated, or "
        "hold several separated by commas.",
    )
    format: SourceFormat | None = setting(
        None,
        "text: one paragraph per line, blank lines between documents. sentences: one sentence per "
        "line, blank lines between documents. jsonl, csv, tsv, parquet: one document per record; "
        "csv and tsv have a header. wikiextractor: <doc> blocks or JSON. tfds: a prepared "
        "TensorFlow data set. huggingface: a data set that `datasets` saved (save_to_disk) or "
        "cached. docstrings: the documentation in the installed Python packages; no --input.",
    )
    source: tuple[str, ...] = setting(
        (),
        "NAME:WEIGHT:FORMAT:INPUT, instead of --input and --format. Repeat it to join several "
        "sources in one corpus. An epoch reads a source of weight 2 twice as often as one of "
        "weight 1.",
    )
    text_column: str | None = setting(
        None,
        "The field or column that holds the text. By default text; in a csv, tsv, parquet or "
        "huggingface source without one, the column with the longest texts.",
    )
    split: str = setting("train", "The split of tfds and huggingface data sets.")
    tfds_data_dir: str | None = setting(
        None, "Where TFDS data sets are prepared, if not where TFDS looks by itself."
    )
    file_end: FileEnd = setting(
        FileEnd.ENDS_DOCUMENT,
        "Whether the end of a text or sentences file ends the document, or the next file continues "
        "it, as in the released generator.",
    )
    encoding_errors: EncodingErrors = setting(
        EncodingErrors.REFUSE,
        "How to treat a line that is not UTF-8: end and print its number, replace characters, or "
        "skip it. The report counts them.",
    )

    def sources(self) -> tuple[Source, ...]:
        """Return the sources that the flags describe.

        Raises:
            InputError: a flag is missing, or the flags contradict each other.
        """
        if self.source and (self.input or self.format):
            raise InputError("--source takes the place of --input and --format: give one or other")
        if self.source:
            sources = tuple(map(self._parse_source, self.source))
        elif self.format:
            inputs = _split(",".join(self.input))
            sources = (self._make_source(self.format, 1.0, self.format, inputs),)
        else:
            raise InputError(f"--format is missing; it may be {', '.join(_FORMATS)}")
        names = [source.name for source in sources]
        if len(names) > _MOST_SOURCES:
            raise InputError(f"--source may be given {_MOST_SOURCES} times, got {len(names)}")
        if repeated := [name for name in names if names.count(name) > 1]:
            raise InputError(f"--source: the name {repeated[0]!r} is given twice")
        return sources

    def _parse_source(self, text: str) -> Source:
        """Parse NAME:WEIGHT:FORMAT:INPUT. Example: `books:2:text:books/*.txt.gz`."""
        name, *rest = text.split(":", 3)
        if len(rest) < 2 or not name:
            raise InputError(f"--source must be NAME:WEIGHT:FORMAT:INPUT, got {text!r}")
        try:
            weight = float(rest[0])
        except ValueError:
            weight = math.nan
        if not 0 < weight < math.inf:
            positive = f"the weight must be a positive number, got {rest[0]!r}"
            raise InputError(f"--source={text}: {positive}")
        if rest[1] not in _FORMATS:
            one_of = f"the format must be one of {', '.join(_FORMATS)}, got {rest[1]!r}"
            raise InputError(f"--source={text}: {one_of}")
        return self._make_source(name, weight, rest[1], _split("".join(rest[2:])))

    def _make_source(
        self, name: str, weight: float, format: str, inputs: tuple[str, ...]
    ) -> Source:
        needs_input = format != SourceFormat.DOCSTRINGS
        if needs_input != bool(inputs):
            problem = "needs input files" if needs_input else "takes no --input"
            raise InputError(f"--format={format} {problem}")
        return Source(
            name=name,
            format=SourceFormat(format),
            inputs=inputs,
            weight=weight,
            text_column=self.text_column,
            split=self.split,
            encoding_errors=self.encoding_errors,
            file_end=self.file_end,
            tfds_data_dir=self.tfds_data_dir,
        )


@dataclasses.dataclass(frozen=True)
class PlanFlags:
    """Flags that describe plans of rows."""

    plan: tuple[str, ...] = setting(
        (),
        "SETTING=VALUE,... of rows, as in max_seq_length=512,packing=packed: plan them beside the "
        "corpus, where runs with these settings of --config.data find them. May be repeated.",
    )
    plan_only: bool = setting(
        False, "Build nothing: plan the rows of --plan for the corpus at --output_dir."
    )
    plan_shards: str = setting(
        "0/1",
        "PART/PARTS: the shards that --plan_only plans, as in 0/8 on the first of eight machines "
        "that share the directory. The last of them to end completes the plan.",
    )

    def configs(self) -> tuple[DataConfig, ...]:
        """Return the settings of each plan, or raise an InputError that names one."""
        return tuple(map(_parse_rows, self.plan))

    def part(self) -> tuple[int, int]:
        """Return the part of the shards, and the number of parts, or raise an InputError."""
        found = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", self.plan_shards)
        if not found or int(found[1]) >= int(found[2]):
            form = "PART/PARTS with a part from 0, as in 0/8"
            raise InputError(f"--plan_shards must be {form}, got {self.plan_shards!r}")
        return int(found[1]), int(found[2])


def _parse_rows(text: str) -> DataConfig:
    settings = {one.name: one for one in own_settings(DataConfig) if one.name in PLANNED_SETTINGS}
    given: dict[str, Any] = {"max_predictions_per_seq": 1}  # plans do not depend on it
    try:
        for item in _split(text):
            name, _, value = item.partition("=")
            if name not in settings:
                known = ", ".join(settings)
                raise InputError(f"--plan={text}: {name!r} is none of the settings {known}")
            one = settings[name]
            try:
                given[name] = one.check(value if one.choices else one.kind(value))
            except ValueError:
                raise FieldError(name, one.allowed, value) from None
        return DataConfig(**given)
    except FieldError as error:
        raise InputError(f"--plan={text}: {error}") from None


def define_flags() -> flags.FlagValues:
    """Return the flags of the command, apart from those of absl."""
    values = flags.FlagValues()
    for one in (field for cls in _CLASSES for field in own_settings(cls)):
        if not one.help:  # not a setting
            continue
        default = None if one.default is dataclasses.MISSING else one.default
        if one.choices:
            flags.DEFINE_enum(one.name, default, one.choices, one.help, flag_values=values)
        else:
            _DEFINE[one.kind](one.name, default, one.help, flag_values=values)
    inspect = "Build nothing: print the first batch of the corpus at --output_dir, with its pairs, "
    flags.DEFINE_bool("inspect", False, f"{inspect}swaps and masks.", flag_values=values)
    flags.DEFINE_bool("help", False, "Show this help.", short_name="h", flag_values=values)
    return values


def read_build_config(values: flags.FlagValues) -> BuildConfig:
    """Return the build configuration that parsed flags describe.

    Raises:
        InputError: a flag is missing or out of range, or two flags contradict each other.
    """
    require_output_dir(values)
    try:
        sources = SourceFlags(**_read(SourceFlags, values)).sources()
        return BuildConfig(sources, **_read(BuildConfig, values))
    except FieldError as error:
        raise InputError(str(error.named(f"--{error.field}"))) from error


def read_engine_config(values: flags.FlagValues) -> EngineConfig:
    """Return the engine configuration that parsed flags describe.

    Raises:
        InputError: the value of a flag is not allowed.
    """
    try:
        return EngineConfig(**_read(EngineConfig, values))
    except FieldError as error:
        raise InputError(str(error.named(f"--{error.field}"))) from error


def read_plan_flags(values: flags.FlagValues) -> PlanFlags:
    """Return the plan flags among parsed flags."""
    return PlanFlags(**_read(PlanFlags, values))


def require_output_dir(values: flags.FlagValues) -> str:
    """Return the corpus directory that the flags name.

    Raises:
        InputError: the flags name none.
    """
    if not values.output_dir:
        raise InputError("--output_dir is missing: the directory of the corpus")
    return values.output_dir


def _read(cls: type, values: flags.FlagValues) -> dict[str, Any]:
    declared = (one for one in own_settings(cls) if one.name in values)
    return {one.name: one.check(values[one.name].value) for one in declared}


def _split(inputs: str) -> tuple[str, ...]:
    return tuple(part for part in inputs.split(",") if part)


_CLASSES = (SourceFlags, BuildConfig, EngineConfig, PlanFlags)
_DEFINE: dict[Any, Any] = {
    bool: flags.DEFINE_bool,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    str: flags.DEFINE_string,
    tuple: flags.DEFINE_multi_string,
}
