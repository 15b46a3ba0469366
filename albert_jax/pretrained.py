"""Reading and writing of weights: ``from_pretrained`` and ``save_pretrained`` of every model.

A path is one of these:

- a Hugging Face directory, with or without a decoder;
- a checkpoint of the released code;
- a workdir of this project, which means its best checkpoint;
- a checkpoint of a workdir, such as ``workdir/checkpoints/500``;
- the name of a model on the Hugging Face Hub, such as ``albert/albert-base-v2``.

The JSON beside the weights defines the model, never a preset.
"""

import dataclasses
import functools
import os
from collections.abc import Sequence
from typing import Any, ClassVar, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from flax import linen as nn
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import PyTree

from albert_jax.config import AlbertConfig, HeadConfig
from albert_jax.decoder.config import Gpt2Config
from albert_jax.encoder import Execution
from albert_jax.interop import huggingface, tensorflow_checkpoint, workdir
from albert_jax.interop.encoder_decoder import is_encoder_decoder, read_encoder_decoder
from albert_jax.interop.hub import local_path
from albert_jax.interop.names import WeightsError
from albert_jax.interop.parameter_fitting import fit_parameters
from albert_jax.interop.saving import SavableTokenizer, save_huggingface
from albert_jax.interop.stored_weights import StoredWeights, flatten, unflatten
from albert_jax.layers import at_least_float32

INITIALIZATION_SEED = 0  # for parameters that are missing, if strict=False

Model = TypeVar("Model", bound="PretrainedModel")


@dataclasses.dataclass(frozen=True)
class PretrainedWeights:
    """The content of a path, whatever its format.

    Attributes:
        config: the encoder's configuration.
        head: labels of its classifier, if it has one.
        params: every stored parameter, float32 NumPy arrays under the names of a model with heads:
            ``albert``, ``predictions``, ``sop_classifier``, ``classifier``, ``qa_outputs``,
            ``start_logits``, ``end_logits``, ``answer_class``, ``decoder``, ``enc_to_dec_proj``.
        architecture: the class that was saved, if known.
        step: number of training steps taken, if known.
        decoder: the decoder's configuration, if there is a decoder.
    """

    config: AlbertConfig
    head: HeadConfig | None
    params: dict[str, Any]
    architecture: str | None
    step: int | None
    decoder: Gpt2Config | None = None


def read_pretrained(
    path: epath.PathLike, *, step: int | None = None, average: bool = True
) -> PretrainedWeights:
    """Read everything that a path holds.

    Args:
        path: see this module's docstring.
        step: the checkpoint of a workdir; by default the best one, or the newest if none was
            evaluated.
        average: for a workdir whose run kept a mean of the parameters, read that mean.

    Raises:
        WeightsError: there are no weights, or they are damaged, have unknown names, or do not fit
            their configuration; one line lists all problems.
        CheckpointError: a workdir's checkpoint is damaged or missing.
    """
    stored = open_weights(path, step=step, average=average)
    params = {name: np.asarray(x, np.float32) for name, x in stored.read_all().items()}
    return PretrainedWeights(
        *(stored.config, stored.head, unflatten(params)),
        *(stored.architecture, stored.step, stored.decoder),
    )


def open_weights(
    path: epath.PathLike, *, step: int | None = None, average: bool = True
) -> StoredWeights:
    """Open the tensors of a path under the names of its format; see `read_pretrained`."""
    given = open_path(path)
    root, step_of_path = workdir.split_step(given)
    if workdir.is_workdir(root):
        step = step_of_path if step is None else step
        return workdir.read_workdir(root, step, average=average)
    if step is not None:
        raise WeightsError(f"{path} is no workdir, so it has no checkpoint of step {step}")
    if is_encoder_decoder(given):
        return read_encoder_decoder(given)
    if huggingface.is_huggingface_directory(given):
        return huggingface.read_huggingface(given)
    if found := tensorflow_checkpoint.find_checkpoint(given):
        return tensorflow_checkpoint.read_tensorflow(*found)
    raise WeightsError(
        f"{path} holds no weights: it is no Hugging Face directory "
        f"({huggingface.HUGGINGFACE_CONFIG_FILE} with a model_type), no released checkpoint "
        f"({workdir.ALBERT_CONFIG_FILE} and *.index), "
        f"no workdir ({workdir.ALBERT_CONFIG_FILE} and {workdir.CHECKPOINTS}/)"
        if given.exists()
        else f"there is no {path}"
    )


def open_path(path: epath.PathLike) -> epath.Path:
    """Return the path object of a path, or of the local copy of a model on the hub."""
    try:
        return epath.Path(local_path(path, error=WeightsError))
    except KeyError as error:  # raised by etils for the part before ://
        raise WeightsError(f"there is no store {error.args[0]}, only gs:// and s3://") from error


def directory_of(path: epath.PathLike) -> epath.Path:
    """Return the directory of the files beside the weights, such as the tokenizer's.

    Example: ``runs/base`` for ``runs/base/checkpoints/500``, ``hub/assets`` for a TF-Hub module,
    ``albert_base`` for ``albert_base/model.ckpt-best``.
    """
    given = open_path(path)
    root, _ = workdir.split_step(given)
    if not workdir.is_workdir(root) and (found := tensorflow_checkpoint.find_checkpoint(given)):
        config_file, _ = found
        return config_file.parent
    return root


@functools.partial(jax.jit, static_argnums=0)
def _initialize(model: nn.Module, key: Array) -> PyTree:
    """Initialize in one compiled program: operation by operation it takes many times as long.

    It uses the default `Execution`, since the kernels of a run may not accept inputs this small:
    splash attention does not.
    """
    inputs = cast(PretrainedModel, model).smallest_inputs()
    return model.clone(execution=Execution()).init(key, **inputs)["params"]


class PretrainedModel:
    """Initialization, reading and writing of parameters, for every model."""

    config: AlbertConfig  # a field of every model
    PREFIX: ClassVar[str] = ""  # prefix of this model's parameters in a model with a head

    def smallest_inputs(self) -> dict[str, Any]:
        """Return the smallest arguments for a call; parameters do not depend on their sizes."""
        return {"input_ids": np.zeros((1, 1), np.int32)}

    def initialize(self, key: Array) -> PyTree:
        """Return random parameters."""
        return _initialize(cast(nn.Module, self), key)

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of every parameter, by its name in a model with a head.

        Example: ``{"albert/pooler/kernel": (768, 768), …}``, also for the bare encoder.
        """
        shapes = flatten(jax.eval_shape(self.initialize, jax.random.key(0)))
        return {f"{self.PREFIX}{name}": leaf.shape for name, leaf in shapes.items()}

    @classmethod
    def from_pretrained(
        cls: type[Model],
        path: epath.PathLike,
        *,
        dtype: DTypeLike = jnp.float32,
        strict: bool = True,
        head: HeadConfig | None = None,
        **fields: Any,
    ) -> tuple[Model, PyTree]:
        """Return the model that a path holds, and its parameters.

        Args:
            path: see this module's docstring. Heads of other tasks are not read; a decoder is read
                only if this model has one.
            dtype: type of activations and matmuls; parameters are at least float32.
            strict: False to initialize what is missing, with `INITIALIZATION_SEED`, and to list it
                in a warning.
            head: labels of the classifier, if they are not those of the path.
            fields: other fields of the model, such as `add_pooling_layer`.

        Raises:
            WeightsError: there are no weights, or no decoder, they cannot be read, or (if strict)
                something is missing, has another shape, or is unknown; one line lists all problems.
            CheckpointError: a workdir's checkpoint is damaged or missing.
        """
        stored = open_weights(path)
        fields |= {"config": stored.config, "dtype": dtype}
        names = {field.name for field in dataclasses.fields(cast(Any, cls))}
        if "head" in names:
            fields["head"] = head or stored.head or HeadConfig()
        if "decoder_config" in names:
            if stored.decoder is None:
                raise WeightsError(f"{path} has an encoder and no decoder")
            fields["decoder_config"] = stored.decoder
        model = cls(**fields)
        return model, model.fit(stored, strict=strict)

    def fit(
        self, stored: StoredWeights, *, required: Sequence[str] = ("",), strict: bool = True
    ) -> PyTree:
        """Return stored weights as this model's parameters, at least float32; see `fit_parameters`.

        Raises:
            WeightsError: (if strict) a required parameter is missing, has another shape, or is
                unknown.
        """
        params = fit_parameters(
            stored,
            self,
            seed=INITIALIZATION_SEED,
            required=required,
            dtype=at_least_float32(cast(Any, self).dtype),
            strict=strict,
        )
        return jax.tree.map(jnp.asarray, params)

    def save_pretrained(
        self,
        path: str | os.PathLike[str],
        params: PyTree,
        tokenizer: SavableTokenizer | None = None,
    ) -> None:
        """Write a directory that transformers loads with its Auto classes.

        The directory appears only when it is complete.

        Args:
            path: a new directory.
            params: the model's parameters, all of one type; the file has that type.
            tokenizer: written beside the model.

        Raises:
            WeightsError: the directory exists, the parameters are not the model's, the vocabulary
                is not the tokenizer's, or transformers has no such model.
        """
        save_huggingface(
            path,
            self.check_parameters(params),
            self.config,
            getattr(self, "head", None),
            architecture=type(self).__name__,
            tokenizer=tokenizer,
        )

    def check_parameters(self, params: PyTree) -> dict[str, np.ndarray]:
        """Return parameters by their names in a model with a head.

        Raises:
            WeightsError: they are not the model's.
        """
        flat = {f"{self.PREFIX}{name}": np.asarray(x) for name, x in flatten(params).items()}
        shapes = self.parameter_shapes()
        wrong = shapes.items() ^ {name: x.shape for name, x in flat.items()}.items()
        if wrong:
            names = ", ".join(sorted({name for name, _ in wrong}))
            raise WeightsError(f"these are not the parameters of {type(self).__name__}: {names}")
        return flat
