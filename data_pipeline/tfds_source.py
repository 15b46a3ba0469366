"""Texts out of TensorFlow data sets that are prepared on this machine; nothing is downloaded."""

from collections.abc import Iterator, Sequence
from typing import Any

from data_pipeline.errors import InputError
from data_pipeline.text_files import InputFile, Reading

_SPLIT = "train"


def find_data_sets(names: Sequence[str], data_dir: str | None) -> list[InputFile]:
    """Prepared data sets by name, such as `wikipedia/20230601.en`.

    Raises:
        InputError: there is no such data set, or it is not prepared.
    """
    found = []
    for name in names:
        info = _open_builder(name, data_dir).info
        split = info.splits[_SPLIT]
        found.append(InputFile(name, split.num_bytes, f"{info.full_name} {split.num_examples}"))
    return found


def read_texts(
    file: InputFile, column: str, data_dir: str | None, reading: Reading
) -> Iterator[str]:
    """The texts of a data set's training split, in the order of its files.

    Raises:
        InputError: its examples have no such text.
    """
    import tensorflow_datasets as tfds

    builder = _open_builder(file.name, data_dir)
    features = builder.info.features
    if column not in features or not isinstance(features[column], tfds.features.Text):
        texts = [name for name in features if isinstance(features[name], tfds.features.Text)]
        raise InputError(
            f"--text_column={column}: data set {file.name} has no such text; its texts are "
            f"{', '.join(texts) or 'none'}"
        )
    # One file after the other, so that the order is the same everywhere.
    order = tfds.ReadConfig(interleave_cycle_length=1)
    examples = builder.as_dataset(
        split=_SPLIT,
        shuffle_files=False,
        read_config=order,
        decoders=tfds.decode.PartialDecoding({column: features[column]}),
    )
    for example in tfds.as_numpy(examples):
        yield example[column].decode("utf-8", errors="replace")
    reading.finish(file.size)


def _open_builder(name: str, data_dir: str | None) -> Any:
    # Only this kind of source needs TensorFlow, which takes seconds to load.
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(name, data_dir=data_dir, try_gcs=False)
    except (tfds.core.DatasetNotFoundError, ValueError, AssertionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"--input={name}: no such TensorFlow data set: {reason}") from None
    if not builder.is_prepared():
        raise InputError(
            f"--input={name}: the data set is not prepared in {builder.data_dir}; "
            f"`tfds build {name}` prepares it, --tfds_data_dir names another place"
        )
    if _SPLIT not in builder.info.splits:
        raise InputError(
            f"--input={name}: the data set has no split {_SPLIT}, only "
            f"{', '.join(builder.info.splits)}"
        )
    return builder
