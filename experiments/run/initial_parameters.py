"""The parameters that a run starts from: those of any stored model of the same vocabulary."""

import logging
from collections.abc import Sequence

from etils import epath
from jaxtyping import PyTree

from albert_jax.interop.names import WeightsError
from albert_jax.interop.parameter_fitting import fit_parameters
from albert_jax.interop.stored_weights import ENCODER, GENERATOR, StoredWeights
from albert_jax.pretrained import PretrainedModel, directory_of, open_weights
from data_pipeline.errors import InputError
from data_pipeline.tokenizers.export import TOKENIZER_CONFIG_FILE, TOKENIZER_FILE
from data_pipeline.tokenizers.pretrained import MissingTokenizerError, read_pretrained_tokenizer
from data_pipeline.tokenizers.tokenizer import TOKENIZER_DIRECTORY, Tokenizer
from experiments.run.config import InitEmbeddings, InitGroups

_WITH_POOLER = "albert/"
# Parameters with a row for each token.
_HEAD = ("predictions/bias", "predictions/decoder")
_OF_VOCABULARY = (
    "albert/embeddings/word_embeddings/",
    *_HEAD,
    *(f"{GENERATOR}{name}" for name in _HEAD),
)

_log = logging.getLogger(__name__)


def open_initial_weights(init_from: str) -> StoredWeights:
    """Open what `run.init_from` names.

    Args:
        init_from: a path that `from_pretrained` reads. A workdir stands for its best checkpoint; a
            path such as ``<workdir>/checkpoints/5000`` names another one.

    Raises:
        InputError: there are no weights.
        CheckpointError: a workdir's checkpoint is damaged or missing.
    """
    try:
        return open_weights(init_from)
    except WeightsError as error:
        raise InputError(f"--config.run.init_from={init_from}: {error}") from error


def read_initial_parameters(
    stored: StoredWeights,
    model: PretrainedModel,
    *,
    seed: int,
    groups: InitGroups = InitGroups.SAME,
    embeddings: InitEmbeddings = InitEmbeddings.STORED,
    read_heads: bool = True,
    required: Sequence[str] = ENCODER,
) -> PyTree:
    """Return a stored model's parameters for another model, without step and optimizer state.

    Shared layers fit any depth. Parameters that are not stored are initialized; the log names them.

    Args:
        stored: from `open_initial_weights`.
        model: the model that the parameters are for.
        seed: seed of the parameters that are initialized.
        groups: which stored copy of the layers fills each copy.
        embeddings: where the parameters with a row for each token come from.
        read_heads: False to initialize all heads, stored or not.
        required: prefixes of the parameters that must be stored; by default those of the encoder,
            without the pooler, which not every model has.

    Returns:
        Float32 host arrays.

    Raises:
        InputError: the weights do not fit; all of the reasons are listed.
    """
    try:
        return fit_parameters(
            stored,
            model,
            seed=seed,
            required=required,
            read=("",) if read_heads else (_WITH_POOLER,),
            initialized=_OF_VOCABULARY if embeddings is InitEmbeddings.FRESH else (),
            from_first_group=groups is InitGroups.FROM_FIRST,
        )
    except WeightsError as error:
        flag = f"--config.run.init_from={stored.source}"
        raise InputError(f"{flag} does not fit the model: {error}") from error


def check_vocabulary(
    init_from: str, tokenizer: Tokenizer, embeddings: InitEmbeddings, *, whose: str
) -> None:
    """Check that ids mean the same in a run and in the model that it starts from.

    Args:
        init_from: a path that `from_pretrained` reads.
        tokenizer: the run's tokenizer.
        embeddings: FRESH logs the difference instead of raising.
        whose: where the run's tokenizer is, for messages.

    Raises:
        InputError: the tokenizers differ in tokens or in the treatment of case or accents.
    """
    try:
        stored = read_stored_tokenizer(init_from, tokenizer)
    except MissingTokenizerError:
        stored = None
    fresh = embeddings is InitEmbeddings.FRESH
    source = f"--config.run.init_from={init_from}"
    if stored is None:
        if not fresh:
            _log.warning("%s has no tokenizer: take care that it is that of %s", source, whose)
        return
    difference = describe_difference(stored, tokenizer)
    if difference and not fresh:
        raise InputError(
            f"{source} has another vocabulary than {whose}: {difference}; "
            f"--config.run.init_embeddings={InitEmbeddings.FRESH} initializes word embeddings and "
            "output bias at random, and reads all other parameters"
        )
    if difference:
        _log.warning("%s has another vocabulary than %s: %s", source, whose, difference)


def describe_difference(there: Tokenizer, here: Tokenizer) -> str:
    """Describe how two tokenizers differ in ids, case, accents or added tokens; "" if equal."""
    if there.vocab_size != here.vocab_size:
        return f"{there.vocab_size} tokens there, {here.vocab_size} here"
    differing = [id for id, token in enumerate(there.tokens) if token != here.tokens[id]]
    if differing:
        first = differing[0]
        return (
            f"{len(differing)} of {here.vocab_size} ids differ, such as {first}, "
            f"{there.tokens[first]!r} there and {here.tokens[first]!r} here"
        )
    for name in ("lower_case", "keep_accents"):
        if getattr(there, name) != getattr(here, name):
            return f"{name} is {getattr(there, name)} there, {getattr(here, name)} here"
    if there.added_tokens.by_id != here.added_tokens.by_id:
        return "other tokens stay whole, or otherwise (added tokens)"
    return ""


def read_stored_tokenizer(path: str, ours: Tokenizer) -> Tokenizer:
    """Read the tokenizer that is stored beside weights.

    Released directories do not say how text is normalized; the settings of `ours` are used then.

    Args:
        path: a path that `from_pretrained` reads.
        ours: the tokenizer of the run.

    Raises:
        MissingTokenizerError: there is none.
        InputError: it is damaged.
    """
    directory = epath.Path(directory_of(path))
    settings = (TOKENIZER_DIRECTORY, TOKENIZER_FILE, TOKENIZER_CONFIG_FILE)
    if any((directory / name).exists() for name in settings):
        return read_pretrained_tokenizer(str(directory))
    return read_pretrained_tokenizer(
        str(directory), lower_case=ours.lower_case, keep_accents=ours.keep_accents
    )
