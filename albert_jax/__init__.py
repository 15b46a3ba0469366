"""ALBERT in JAX and Flax."""

import importlib.metadata
import os
from typing import TYPE_CHECKING, Any

from albert_jax.lazy_exports import lazy_exports

# All three packages read paths on stores (gs://, s3://) with fsspec: etils would prefer TensorFlow,
# which supports only one of the stores. Etils reads this variable once, at the first such path.
os.environ["EPATH_USE_TF"] = "false"

if TYPE_CHECKING:
    from albert_jax.config import AlbertConfig, HeadConfig, Pooling, ProblemType
    from albert_jax.decoder.config import Gpt2Config
    from albert_jax.generation import (
        AlbertForConditionalGeneration,
        GenerationOptions,
        generate,
        read_generation_options,
    )
    from albert_jax.model import AlbertForPreTraining, AlbertModel
    from albert_jax.pretrained import PretrainedWeights, read_pretrained
    from albert_jax.tasks.embedding import AlbertForEmbedding
    from albert_jax.tasks.models import (
        AlbertForConditionalSpan,
        AlbertForMaskedLM,
        AlbertForMultipleChoice,
        AlbertForQuestionAnswering,
        AlbertForSequenceClassification,
        AlbertForTokenClassification,
    )

_get_export, __all__ = lazy_exports(
    __name__,
    {
        "config": ["AlbertConfig", "HeadConfig", "Pooling", "ProblemType"],
        "decoder.config": ["Gpt2Config"],
        "generation": [
            *("AlbertForConditionalGeneration", "GenerationOptions", "generate"),
            "read_generation_options",
        ],
        "model": ["AlbertForPreTraining", "AlbertModel"],
        "pretrained": ["PretrainedWeights", "read_pretrained"],
        "tasks.embedding": ["AlbertForEmbedding"],
        "tasks.models": [
            "AlbertForConditionalSpan",
            "AlbertForMaskedLM",
            "AlbertForMultipleChoice",
            "AlbertForQuestionAnswering",
            "AlbertForSequenceClassification",
            "AlbertForTokenClassification",
        ],
    },
)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.metadata.version("albert-jax")
    return _get_export(name)
