"""The layers, the sharing of their parameters over depth, and how they are computed."""

from albert_jax.encoder.depth_scan import scan_layers
from albert_jax.encoder.encoder import AlbertEncoder, encoder_shapes, skips_positions
from albert_jax.encoder.execution import Execution, Remat
from albert_jax.encoder.halves import FeedForward, SelfAttention
from albert_jax.encoder.stacks import Params, split_by_depth

__all__ = [
    "AlbertEncoder",
    "Execution",
    "FeedForward",
    "Params",
    "Remat",
    "SelfAttention",
    "encoder_shapes",
    "scan_layers",
    "skips_positions",
    "split_by_depth",
]
