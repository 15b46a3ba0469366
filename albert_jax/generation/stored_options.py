"""Generation options stored with a model: ``generation_config.json`` of a workdir or directory.

Both have a file of that name. A workdir's file has all fields of `GenerationOptions`. That of
transformers has its own names, the special tokens, and much that is not supported here.
"""

from collections.abc import Mapping
from typing import Any

from etils import epath

from albert_jax.generation.config import GenerationOptions
from albert_jax.input_files import read_json_object, require_fields
from albert_jax.interop.names import WeightsError
from albert_jax.interop.workdir import OPTIONS_FILE, is_workdir, make_settings, settings_bytes
from albert_jax.pretrained import directory_of

_SHARED = (  # of the same name and meaning in both
    *("max_new_tokens", "min_new_tokens", "num_beams", "length_penalty", "early_stopping"),
    "no_repeat_ngram_size",
)
# What transformers reads only if it samples, and its defaults.
_OF_SAMPLING = {"temperature": 1.0, "top_k": 50, "top_p": 1.0}
# Lengths that include the start token, which ours do not.
_WITH_START = {"max_length": "max_new_tokens", "min_length": "min_new_tokens"}
_BOOLEANS = {"true": True, "false": False}


def read_generation_options(path: epath.PathLike) -> GenerationOptions | None:
    """Read the options that a model's files recommend, or return None if they have none.

    Args:
        path: what `AlbertForConditionalGeneration.from_pretrained` reads.

    Raises:
        WeightsError: a value is not allowed, or options do not go together.
    """
    root = epath.Path(directory_of(path))
    file = root / OPTIONS_FILE
    if is_workdir(root):
        return read_options(file) if file.exists() else None
    if not file.exists():
        return None
    values = read_json_object(file, error=WeightsError, drop_nulls=True)
    return _options_from_json(values, str(file))


def options_bytes(options: GenerationOptions) -> bytes:
    """Return a workdir's ``generation_config.json``: every field by its name."""
    return settings_bytes(options)


def read_options(file: epath.Path) -> GenerationOptions:
    """Read a workdir's ``generation_config.json``; return the defaults if there is none.

    Raises:
        WeightsError: it is damaged.
    """
    if not file.exists():
        return GenerationOptions()
    values = read_json_object(file, error=WeightsError, drop_nulls=True)
    return make_settings(GenerationOptions, values, str(file))


def options_to_json(options: GenerationOptions) -> dict[str, Any]:
    """Convert to transformers' options, which have no seed."""
    values = {name: getattr(options, name) for name in _SHARED}
    stop = str(options.early_stopping)
    values |= {"early_stopping": _BOOLEANS.get(stop, stop), "do_sample": options.temperature > 0}
    if options.temperature > 0:
        values |= {name: getattr(options, name) for name in _OF_SAMPLING}
    return values


def _options_from_json(values: Mapping[str, Any], file: str) -> GenerationOptions | None:
    """Convert transformers' options; the many that are not supported are ignored."""
    fields = {name: values[name] for name in _SHARED if name in values}
    for there, here in _WITH_START.items():
        if there in values and here not in fields:
            require_fields(values, {there: int}, file, error=WeightsError)
            fields[here] = max(0, values[there] - 1)
    if isinstance(stop := fields.get("early_stopping"), bool):
        fields["early_stopping"] = str(stop).lower()
    if "do_sample" in values:
        require_fields(values, {"do_sample": bool}, file, error=WeightsError)
        if values["do_sample"]:
            fields |= {name: values.get(name, usual) for name, usual in _OF_SAMPLING.items()}
    return make_settings(GenerationOptions, fields, file) if fields else None
