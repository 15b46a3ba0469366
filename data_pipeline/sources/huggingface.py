"""Data sets that `datasets` saved (`save_to_disk`) or cached; the library itself is not needed.

Nothing is downloaded. Both kinds are directories of Arrow files, which are read one after another.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from etils import epath

from albert_jax.input_files import read_json_object
from data_pipeline.errors import InputError
from data_pipeline.remote import open_path
from data_pipeline.sources.arrow import ARROW
from data_pipeline.sources.text_files import InputFile, find_files

_SPLITS_FILE, _STATE_FILE, _INFO_FILE = "dataset_dict.json", "state.json", "dataset_info.json"


def find_shards(name: str, split: str | Sequence[str], *, flag: str = "--input") -> list[InputFile]:
    """Find the Arrow files of a data set.

    Args:
        name: a local or remote directory that `save_to_disk` wrote or that belongs to the cache;
            or the name of a data set in the cache, with its configuration if there are several:
            `wikimedia/wikipedia/20231101.en`.
        split: the split, or the names that it may have; a directory may hold a single unnamed
            split.
        flag: the flag that gives the name, for messages.

    Raises:
        InputError: there is no such data set or split, or one of its files is missing.
    """
    given = open_path(name)
    place, wanted = f"{flag}={name}", [split] if isinstance(split, str) else split
    directory = given if given.is_dir() else epath.Path(_find_cached(name, place))
    if (directory / _SPLITS_FILE).exists():
        splits = _read(directory / _SPLITS_FILE).get("splits", [])
        directory = directory / _choose_split(place, wanted, list(map(str, splits)))
    if (directory / _STATE_FILE).exists():
        files = _read(directory / _STATE_FILE).get("_data_files", [])
        shards = [directory / str(file["filename"]) for file in files]
    elif (directory / _INFO_FILE).exists():
        counts = _read(directory / _INFO_FILE).get("splits") or {}
        shards = _cached_shards(directory, _choose_split(place, wanted, list(counts)), place)
    else:
        raise InputError(
            f"{place}: the directory has no {_SPLITS_FILE}, {_STATE_FILE} or {_INFO_FILE}, so "
            "`datasets` has not saved a data set there"
        )
    return [file for shard in shards for file in find_files(os.fspath(shard), place)]


def _read(file: epath.Path) -> dict[str, Any]:
    return read_json_object(file, error=InputError)


def _choose_split(place: str, wanted: Sequence[str], splits: list[str]) -> str:
    for split in wanted:
        if split in splits:
            return split
    found, hint = ", ".join(splits) or "none", "; see --split" * place.startswith("--input=")
    raise InputError(
        f"{place}: the data set has no split {' or '.join(wanted)}, only {found}{hint}"
    )


def _cached_shards(directory: epath.Path, split: str, place: str) -> list[epath.Path]:
    """Return the files of a split, `NAME-SPLIT.arrow` or `NAME-SPLIT-00000-of-00002.arrow`."""
    one = sorted(directory.glob(f"*-{split}{ARROW}"))
    several = sorted(directory.glob(f"*-{split}-?????-of-?????{ARROW}"))
    if not one and len(several) != (count := int(several[0].stem[-5:]) if several else 1):
        raise InputError(
            f"{place}: {directory} has {len(several)} of the {count} files of the split {split}: "
            "the data set was not cached as a whole"
        )
    return one or several


def _find_cached(name: str, place: str) -> Path:
    """Find the directory of a data set in the cache; the newest if it was cached repeatedly."""
    cache = _cache_directory()
    wanted = _letters(name)
    found = {
        info.parent: info.stat().st_mtime
        for data_set in (cache.iterdir() if cache.is_dir() else ())
        if wanted.startswith(_letters(data_set.name))
        for info in data_set.rglob(_INFO_FILE)
        if wanted in _names(data_set, info.relative_to(data_set).parts[0])
    }
    configurations = sorted({path.relative_to(cache).parts[1] for path in found})
    if len(configurations) > 1:
        raise InputError(
            f"{place}: the data set is cached in several configurations, name one: "
            f"{', '.join(f'{name}/{one}' for one in configurations)}"
        )
    if not found:
        fetch = f"from datasets import load_dataset; load_dataset('{name}')"
        raise InputError(
            f"{place} is no directory, and {cache} has no data set of that name; with a "
            f"network, `pip install 'albert-jax[huggingface]'` and `python -c \"{fetch}\"` fetch it"
        )
    return max(found, key=lambda path: (found[path], path))


def _cache_directory() -> Path:
    """Return the cache directory of `datasets`, based on its environment variables."""
    home = os.environ.get("HF_HOME") or Path(
        os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "huggingface"
    )
    return Path(os.environ.get("HF_DATASETS_CACHE") or Path(home, "datasets")).expanduser()


def _letters(name: str) -> str:
    """Normalize a name for comparison: `Owner/TinyStories` is cached as `Owner___tiny_stories`."""
    return name.replace("_", "").replace("/", "").lower()


def _names(data_set: Path, configuration: str) -> set[str]:
    return {_letters(data_set.name), _letters(f"{data_set.name}/{configuration}")}
