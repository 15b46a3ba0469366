"""The layers and their cross-layer parameter sharing (ALBERT §3.1, §4.5).

A layer is an attention half and a feed-forward half. Each half is stored once per copy:
`AlbertConfig.attention_copies` and `feed_forward_copies` give their numbers, from one (the paper's
sharing) to one per layer (BERT). Every stored tensor has two leading axes ``[copies, inner]``,
whatever their sizes, so that names and shapes mean the same in every mode. The depth is a scan: a
copy that all layers use enters it as a constant, so its gradient adds up over depth; several copies
enter it one slice a layer.
"""

import functools
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float

from albert_jax.attention.implementation import AttentionFn
from albert_jax.attention.reference import dot_product_attention
from albert_jax.config import AlbertConfig
from albert_jax.encoder.depth_scan import scan_layers
from albert_jax.encoder.execution import Execution
from albert_jax.encoder.halves import FeedForward, SelfAttention
from albert_jax.encoder.low_rank import add_changes, changes_of, initialize_changes
from albert_jax.layers import dense, normalization
from albert_jax.positions import position_encoder

Params = dict[str, Any]


class AlbertEncoder(nn.Module):
    """The map from embedding to hidden size and the layers.

    Layer i of L uses copy ``i * copies // L`` of each half; a group with inner blocks applies them
    one after another, so the depth is ``num_hidden_layers * inner_group_num``.
    """

    config: AlbertConfig
    dtype: DTypeLike = jnp.float32
    execution: Execution = Execution()

    @nn.compact
    def __call__(
        self,
        embedded: Float[Array, "batch length embedding"],
        attend: AttentionFn,
        *,
        local_attend: AttentionFn | None = None,
        deterministic: bool,
        output_hidden_states: bool,
        num_layers: int | None = None,
    ) -> tuple[
        Float[Array, "batch length hidden"],
        tuple[Float[Array, "batch length hidden"], ...] | None,
    ]:
        """Return the last hidden state, and on demand all 1 + depth, the layers' input first.

        Where layers normalize before their halves, the final layer norm is applied to all of them.

        Args:
            embedded: the embeddings.
            attend: attention of the applications that are global.
            local_attend: of those that have a window, where there are any.
            deterministic: no dropout.
            output_hidden_states: return all of them.
            num_layers: apply the first layers alone, each with the parameters that it has among all
                of them; None: all.
        """
        config = self.config
        layers = config.num_hidden_layers if num_layers is None else num_layers
        hidden = embedded
        if config.has_embedding_mapping:
            mapping = dense(config, config.hidden_size, self.dtype, "embedding_hidden_mapping_in")
            hidden = mapping(embedded)

        bias = position_encoder(config).bias(self, self.dtype)
        options: dict[str, Any] = {} if bias is None else {"bias": bias}
        attends = {
            local: functools.partial(each, **options)
            for local, each in ((False, attend), (True, local_attend))
            if each is not None
        }
        halves = {
            "attention": SelfAttention(config, self.dtype, self.execution, parent=None),
            "feed_forward": FeedForward(config, self.dtype, self.execution, parent=None),
        }
        local_attention = SelfAttention(config, self.dtype, self.execution, local=True, parent=None)
        stacks = self.param("layers", _initialize_layers, config, halves)
        keys = None
        if not deterministic:
            shape = (layers, config.inner_group_num, len(halves))
            keys = jax.random.split(self.make_rng("dropout"), shape)
        constant, varying = split_by_depth(stacks, config.num_hidden_layers)
        if layers < config.num_hidden_layers:
            varying = jax.tree.map(lambda leaf: leaf[:layers], varying)

        def apply(
            half: nn.Module, params: Params, hidden: Array, rngs: Any, *, local: bool
        ) -> Array:
            variables = {"params": params}
            output = half.apply(
                variables, hidden, attends[local], deterministic=deterministic, rngs=rngs
            )
            return cast(Array, output)

        def apply_group(
            number: int, hidden: Array, xs: tuple[Params, Array | None]
        ) -> tuple[Array, Any]:
            varying, keys = xs
            layer = constant | varying
            outputs = []
            for inner in range(config.inner_group_num):
                block = jax.tree.map(lambda leaf, inner=inner: leaf[inner], layer)
                local = not config.is_global(number * config.inner_group_num + inner)
                for half_number, (name, half) in enumerate(halves.items()):
                    params = block[name]
                    if local and name == "attention":
                        half = local_attention
                    if config.depth_rank:
                        params = add_changes(params, block[changes_of(name)])
                    rngs = None if keys is None else {"dropout": keys[inner, half_number]}
                    hidden = apply(half, params, hidden, rngs, local=local)
                outputs.append(hidden)
            return hidden, outputs if output_hidden_states else None

        first = hidden
        hidden, outputs = scan_layers(
            apply_group,
            hidden,
            (varying, keys),
            layers=layers,
            period=config.attention_period,
            execution=self.execution,
        )
        states: tuple[Array, ...] = (hidden,)
        if output_hidden_states:
            by_layer = zip(*outputs, strict=True)  # outputs: for each inner block, [layers, ...]
            states = (first, *(block for layer in by_layer for block in layer))
        if config.norm.is_before:
            norm = normalization(config, self.dtype, "layer_norm")
            states = tuple(map(norm, states))
        return states[-1], states if output_hidden_states else None


def _initialize_layers(key: Array, config: AlbertConfig, halves: dict[str, nn.Module]) -> Params:
    """Initialize both halves, each leaf ``[copies, inner, ...]``, every slice independently.

    Where there are changes, the halves are those of the same key without them.
    """
    copies = {"attention": config.attention_copies, "feed_forward": config.feed_forward_copies}
    hidden = jnp.zeros((1, 1, config.hidden_size))

    def initialize(name: str, key: Array) -> Params:
        def one(key: Array) -> Params:
            variables = halves[name].init(key, hidden, dot_product_attention, deterministic=True)
            return cast(Params, variables["params"])

        return jax.vmap(jax.vmap(one))(
            jax.random.split(key, (copies[name], config.inner_group_num))
        )

    keys = jax.random.split(key, len(halves))
    stacks = {name: initialize(name, key) for name, key in zip(halves, keys, strict=True)}
    if not config.depth_rank:
        return stacks
    changes = {
        changes_of(name): initialize_changes(jax.random.fold_in(key, 1), config, stacks[name])
        for name, key in zip(halves, keys, strict=True)
    }
    return stacks | changes


def split_by_depth(stacks: Params, layers: int) -> tuple[Params, Params]:
    """Separate the halves that all layers share from those that differ, one slice a layer.

    Example: with 4 layers, a half with 1 copy is constant, one with 2 copies becomes the slices
    0, 0, 1, 1, one with 4 copies the slices 0, 1, 2, 3.
    """
    constant, varying = {}, {}
    for name, stack in stacks.items():
        copies = jax.tree.leaves(stack)[0].shape[0]
        if copies == 1:
            constant[name] = jax.tree.map(lambda leaf: leaf[0], stack)
        elif copies == layers:
            varying[name] = stack
        else:
            copy_of_layer = np.arange(layers) * copies // layers
            varying[name] = jax.tree.map(lambda leaf, used=copy_of_layer: leaf[used], stack)
    return constant, varying


def encoder_shapes(config: AlbertConfig) -> dict[str, tuple[int, ...]]:
    """Return the shape of every parameter of the encoder.

    Example: ``{"layers/attention/query/kernel": (1, 1, 768, 768), …}``
    """

    def initialize(key: Array) -> Params:
        embedded = jnp.zeros((1, 1, config.embedding_size))
        options = {"deterministic": True, "output_hidden_states": False}
        variables = AlbertEncoder(config).init(key, embedded, dot_product_attention, **options)
        return cast(Params, variables["params"])

    shapes = jax.eval_shape(initialize, jax.random.key(0))
    return {name: leaf.shape for name, leaf in flatten_dict(shapes, sep="/").items()}
