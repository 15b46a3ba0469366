"""The parameters that a run starts from: those of any stored model."""

from jaxtyping import PyTree

from albert_jax.interop.names import WeightsError
from albert_jax.interop.parameter_fitting import fit_parameters
from albert_jax.pretrained import PretrainedModel, open_weights
from data_pipeline.errors import InputError
from experiments.run.config import InitGroups

# The pooler is not among them: not every model that can be read has one.
_REQUIRED = ("albert/embeddings/", "albert/encoder/")
_ENCODER = "albert/"


def read_initial_parameters(
    init_from: str,
    model: PretrainedModel,
    *,
    seed: int,
    groups: InitGroups = InitGroups.SAME,
    read_heads: bool = True,
) -> PyTree:
    """Return a stored model's parameters for another model; neither step nor optimizer state.

    Shared layers fit any depth. Heads that are not stored are initialized, and the log names them.

    Args:
        init_from: a path that `from_pretrained` reads; of a workdir the best checkpoint, unless it
            names one, such as ``<workdir>/checkpoints/5000``.
        model: the model that the parameters are for.
        seed: of what is initialized.
        groups: which copies of the layers are filled from which.
        read_heads: False to initialize all heads, stored or not.

    Returns:
        Float32 host arrays.

    Raises:
        InputError: there are no weights, or they do not fit; all of the reasons are listed.
        CheckpointError: a workdir's checkpoint is damaged or missing.
    """
    flag = f"--config.run.init_from={init_from}"
    try:
        stored = open_weights(init_from)
    except WeightsError as error:
        raise InputError(f"{flag}: {error}") from error
    try:
        return fit_parameters(
            stored,
            model,
            seed=seed,
            required=_REQUIRED,
            read=("",) if read_heads else (_ENCODER,),
            from_first_group=groups is InitGroups.FROM_FIRST,
        )
    except WeightsError as error:
        raise InputError(f"{flag} does not fit the model: {error}") from error
