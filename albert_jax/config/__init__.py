"""Configuration of models: fields under their released names, ablations, released sizes, heads."""

from albert_jax.config.choices import (
    DepthSignal,
    EmbeddingMapping,
    FeedForwardKind,
    HiddenAct,
    Initialization,
    Norm,
    NormKind,
    ParameterSharing,
    PositionEncoding,
)
from albert_jax.config.head import MOST_LABELS, HeadConfig, Pooling, ProblemType
from albert_jax.config.model import ROTARY_BASE, AlbertConfig

__all__ = [
    "MOST_LABELS",
    "ROTARY_BASE",
    "AlbertConfig",
    "DepthSignal",
    "EmbeddingMapping",
    "FeedForwardKind",
    "HeadConfig",
    "HiddenAct",
    "Initialization",
    "Norm",
    "NormKind",
    "ParameterSharing",
    "Pooling",
    "PositionEncoding",
    "ProblemType",
]
