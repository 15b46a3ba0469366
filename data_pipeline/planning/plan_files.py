"""The files of plans: their metadata, and which errors count as damage."""

from pathlib import Path
from typing import Any

from albert_jax.input_files import read_json_object
from data_pipeline.corpus.reader import Corpus
from data_pipeline.errors import InputError
from data_pipeline.verification import DamageError, unseal

METADATA_FILE = "metadata.json"

# Errors raised on opening a plan that was truncated or changed on disk.
DAMAGE = (OSError, ValueError, KeyError, TypeError)


def check_settings_of(directory: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Return the metadata in a directory, or raise one of `DAMAGE` if its settings differ.

    Args:
        directory: the directory of a plan or of one of its shards.
        settings: everything that the plan depends on.
    """
    metadata = unseal(read_json_object(directory / METADATA_FILE, error=DamageError))
    if metadata["settings"] != settings:
        raise DamageError("it is the plan of other settings")
    return metadata


def too_small(corpus: Corpus, split: str) -> InputError:
    """Return the error for a split that does not fill a single row."""
    return InputError(f"the {split} split of {corpus.path} is too small: it does not hold one pair")
