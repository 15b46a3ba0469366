"""How a model turns a text into a vector, in the files that sentence-transformers has for it.

Workdirs and exports both have these files, so that a model's pooling is found in one place.
"""

import json
from typing import Any, NamedTuple

from etils import epath

from albert_jax.config import AlbertConfig, Pooling
from albert_jax.input_files import parse_json, read_json_object, read_text
from albert_jax.interop.names import WeightsError
from albert_jax.settings import FieldError

MODULES_FILE = "modules.json"
POOLING_FILE = "1_Pooling/config.json"

_CLASSES = ("Transformer", "Pooling", "Normalize")
# The poolings that sentence-transformers has too, by their names in files of all its versions.
_SWITCHES = {Pooling.FIRST: "pooling_mode_cls_token", Pooling.MEAN: "pooling_mode_mean_tokens"}
_NAMES = {"cls": Pooling.FIRST, "mean": Pooling.MEAN}  # additional names since its version 5


class VectorForm(NamedTuple):
    """How a vector is made from hidden states.

    Attributes:
        pooling: how the states of a text are pooled.
        normalize: True for vectors of length 1.
    """

    pooling: Pooling
    normalize: bool


def embedding_files(config: AlbertConfig, form: VectorForm) -> dict[str, bytes]:
    """Return the files, by name, that say how a model's vectors are made.

    Raises:
        FieldError: sentence-transformers has no such pooling.
    """
    if form.pooling not in _SWITCHES:
        raise FieldError("pooling", " or ".join(_SWITCHES), str(form.pooling))
    kinds = _CLASSES[: 2 + form.normalize]
    modules = [
        {
            "idx": number,
            "name": str(number),
            "path": f"{number}_{kind}" if number else "",
            "type": f"sentence_transformers.models.{kind}",
        }
        for number, kind in enumerate(kinds)
    ]
    pooling = {"word_embedding_dimension": config.hidden_size}
    switches = {switch: one is form.pooling for one, switch in _SWITCHES.items()}
    return {MODULES_FILE: _to_json(modules), POOLING_FILE: _to_json(pooling | switches)}


def sentence_transformers_files(config: AlbertConfig, form: VectorForm) -> dict[str, bytes]:
    """Return the files that sentence-transformers needs in addition to those of transformers.

    Raises:
        FieldError: see `embedding_files`.
    """
    longest = {"max_seq_length": config.longest_row, "do_lower_case": False}
    return {
        **embedding_files(config, form),
        # If texts are lowercased, the tokenizer does it.
        "sentence_bert_config.json": _to_json(longest),
        "config_sentence_transformers.json": _to_json(
            {"__version__": {}, "similarity_fn_name": "cosine"}
        ),
    }


def read_vector_form(directory: epath.Path) -> VectorForm | None:
    """Read how the vectors of a model are made; None if its files do not say.

    Raises:
        WeightsError: a file cannot be read, or asks for something unknown.
    """
    file = directory / MODULES_FILE
    if not file.exists():
        return None
    modules = parse_json(read_text(file, error=WeightsError), str(file), error=WeightsError)
    kinds = [_kind_of(module, file) for module in (modules if isinstance(modules, list) else [])]
    if kinds not in ([*_CLASSES[:2]], [*_CLASSES]):
        known = f"{', '.join(_CLASSES[:2])} and perhaps {_CLASSES[2]}"
        raise WeightsError(
            f"{file}: the modules must be {known}, found {', '.join(kinds) or 'none'}"
        )
    place = directory / str(modules[1].get("path")) / "config.json"
    values = read_json_object(place, error=WeightsError)
    named = values.get("pooling_mode")
    switched = [name for name, on in values.items() if name.startswith("pooling_mode_") and on]
    poolings = [one for one, switch in _SWITCHES.items() if switch in switched]
    if isinstance(named, str) and named in _NAMES:
        poolings, switched = [_NAMES[named]], [named]
    if len(poolings) != 1 or len(switched) != 1:
        found = named or ", ".join(switched) or "none"
        raise WeightsError(f"{place}: the pooling must be one of cls and mean, found {found}")
    return VectorForm(poolings[0], len(kinds) > 2)


def _kind_of(module: Any, file: epath.Path) -> str:
    """Return the last part of the name of a module's class."""
    name = module.get("type") if isinstance(module, dict) else None
    if not isinstance(name, str):
        raise WeightsError(f"{file}: a module has no type")
    return name.rpartition(".")[2]


def _to_json(content: Any) -> bytes:
    return (json.dumps(content, indent=2) + "\n").encode()
