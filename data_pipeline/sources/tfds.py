"""Texts and examples of TensorFlow data sets prepared on this machine; nothing is downloaded."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from data_pipeline.errors import InputError
from data_pipeline.sources.text_files import InputFile, ReadingProgress


def find_data_sets(names: Sequence[str], split: str, data_dir: str | None) -> list[InputFile]:
    """Find prepared data sets by name, such as `wikipedia/20230601.en`.

    Raises:
        InputError: there is no such data set, or it is not prepared.
    """
    found = []
    for name in names:
        info = _open_builder(name, split, data_dir, _OF_CORPORA).info
        counts = info.splits[split]
        found.append(InputFile(name, counts.num_bytes, f"{info.full_name} {counts.num_examples}"))
    return found


def read_texts(
    file: InputFile, column: str, split: str, data_dir: str | None, progress: ReadingProgress
) -> Iterator[str]:
    """Read the texts of a split of a data set, in file order.

    Raises:
        InputError: the examples have no such text.
    """
    import tensorflow_datasets as tfds

    builder = _open_builder(file.name, split, data_dir, _OF_CORPORA)
    features = builder.info.features
    if column not in features or not isinstance(features[column], tfds.features.Text):
        texts = [name for name in features if isinstance(features[name], tfds.features.Text)]
        raise InputError(
            f"--text_column={column}: data set {file.name} has no such text; its texts are "
            f"{', '.join(texts) or 'none'}"
        )
    progress.start(file)
    for example in _read(builder, split, [column]):
        yield example[column].decode("utf-8", errors="replace")
    progress.finish(file.size)


class TfdsExamples(NamedTuple):
    """The examples of a labeled data set.

    Attributes:
        records: feature -> value, text as UTF-8.
        label_names: names of the classes in the order of their numbers; empty if `label` is not a
            class.
    """

    records: Iterator[Mapping[str, Any]]
    label_names: tuple[str, ...]


def read_examples(
    name: str, split: str, features: Sequence[str], data_dir: str | None
) -> TfdsExamples:
    """Read a split of a prepared data set, in file order.

    Args:
        name: the name of the data set.
        split: the split.
        features: features that each example must have, including `label`.
        data_dir: the directory of TFDS data sets; None for the TFDS default.

    Raises:
        InputError: there is no such data set or split, it is not prepared, or it lacks a feature.
    """
    builder = _open_builder(name, split, data_dir, _OF_TASKS)
    found = builder.info.features
    for feature in features:
        if feature not in found:
            raise InputError(
                f"data set {name} has no feature {feature!r} among {', '.join(map(repr, found))}"
            )
    label_names = tuple(getattr(found["label"], "names", ()))
    return TfdsExamples(_read(builder, split, features), label_names)


def read_features(
    name: str, split: str, features: Sequence[str], data_dir: str | None
) -> Iterator[tuple[str, ...]]:
    """Read some texts of each example of a prepared data set, in file order.

    Args:
        name: the name of the data set, or the directory of one of its versions.
        split: the split.
        features: names of text features; `outer/inner` for one inside another feature.
        data_dir: the directory of TFDS data sets; None for the TFDS default.

    Raises:
        InputError: there is no such data set or split, it is not prepared, it lacks a feature or
            has one that is not a text, or a text is not UTF-8.
    """
    import tensorflow_datasets as tfds

    builder = _open_builder(name, split, data_dir, _OF_TASKS)
    texts = dict(_find_texts(builder.info.features, tfds.features.FeaturesDict))
    for feature in features:
        if not isinstance(texts.get(feature), tfds.features.Text):
            kinds = sorted(texts.items(), key=lambda item: item[0])
            found = [repr(path) for path, kind in kinds if isinstance(kind, tfds.features.Text)]
            among = ", ".join(found) or "none"
            raise InputError(f"data set {name} has no text {feature!r} among {among}")
    outer = list(dict.fromkeys(feature.partition("/")[0] for feature in features))
    for number, example in enumerate(_read(builder, split, outer)):
        try:
            yield tuple(_pick(example, feature).decode("utf-8") for feature in features)
        except UnicodeDecodeError:
            raise InputError(
                f"data set {name}, split {split}, example {number}: a text is not UTF-8"
            ) from None


def _pick(example: Any, feature: str) -> Any:
    """Return the value of a feature such as `outer/inner`."""
    for part in feature.split("/"):
        example = example[part]
    return example


def _find_texts(features: Any, nested: type, place: str = "") -> Iterator[tuple[str, Any]]:
    for name in features:
        path = f"{place}{name}"
        if isinstance(features[name], nested):
            yield from _find_texts(features[name], nested, f"{path}/")
        else:
            yield path, features[name]


def _read(builder: Any, split: str, features: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    import tensorflow_datasets as tfds

    wanted = {feature: builder.info.features[feature] for feature in features}
    examples = builder.as_dataset(
        split=split,
        shuffle_files=False,
        # Read one file after the other, so that the order is the same everywhere.
        read_config=tfds.ReadConfig(interleave_cycle_length=1),
        decoders=tfds.decode.PartialDecoding(wanted),
    )
    yield from tfds.as_numpy(examples)


class _Wording(NamedTuple):
    """How messages refer to a data set, and to the setting of its directory."""

    data_set: str
    directory: str


_OF_CORPORA = _Wording("--input=", "--tfds_data_dir")
_OF_TASKS = _Wording("data set ", "the task's data directory")


def _open_builder(name: str, split: str, data_dir: str | None, wording: _Wording) -> Any:
    # Only this kind of source needs TensorFlow, which takes seconds to import.
    import tensorflow_datasets as tfds

    place = f"{wording.data_set}{name}"
    try:
        if (Path(name) / "dataset_info.json").is_file():
            builder = tfds.builder_from_directory(name)
        else:
            builder = tfds.builder(name, data_dir=data_dir, try_gcs=False)
    except (tfds.core.DatasetNotFoundError, ValueError, AssertionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{place}: no such TensorFlow data set: {reason}") from None
    if not builder.is_prepared():
        raise InputError(
            f"{place}: the data set is not prepared in {builder.data_dir}; "
            f"`tfds build {name}` prepares it, {wording.directory} sets another directory"
        )
    if split not in builder.info.splits:
        raise InputError(
            f"{place}: the data set has no split {split}, only {', '.join(builder.info.splits)}"
        )
    return builder
