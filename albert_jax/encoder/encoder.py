"""The layers and their cross-layer parameter sharing (ALBERT §3.1, §4.5).

A layer is an attention half and a feed-forward half. Each half is stored once per copy:
`AlbertConfig.attention_copies` and `feed_forward_copies` give the numbers of copies, from one (the
paper's sharing) to one per layer (BERT). Every stored tensor has two leading axes
``[copies, inner]``, even of size one, so that names and shapes mean the same in every mode. The
layers run as a scan over depth. A copy that all layers share enters it as a constant, so its
gradient is summed over depth; several copies enter it as one slice per layer.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.traverse_util import flatten_dict
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float, Int

from albert_jax.attention.implementation import AttentionFn
from albert_jax.attention.reference import dot_product_attention
from albert_jax.config import AlbertConfig
from albert_jax.encoder.depth_scan import ApplyLayer, scan_layers
from albert_jax.encoder.depth_signal import add_embedding
from albert_jax.encoder.execution import Execution, rematerialize
from albert_jax.encoder.experts import ROUTING, Routing
from albert_jax.encoder.halves import FeedForward, SelfAttention
from albert_jax.encoder.stacks import (
    Params,
    half_of_layer,
    initialize_layers,
    segments,
    split_by_depth,
)
from albert_jax.layers import AnyArray, dense, gather_positions, normalization
from albert_jax.positions import position_encoder

NUM_HALVES = 2


class AlbertEncoder(nn.Module):
    """The projection from embedding to hidden size, and the layers.

    Layer i of L uses copy ``i * copies // L`` of each half. A layer applies its inner blocks one
    after another, so the depth is ``num_hidden_layers * inner_group_num``.
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
        chosen_positions: Int[AnyArray, "batch chosen"] | None = None,
    ) -> tuple[
        Float[Array, "batch chosen hidden"],
        tuple[Float[Array, "batch length hidden"], ...] | None,
    ]:
        """Return the last hidden state and, on request, all 1 + depth, the layers' input first.

        If layers normalize before their halves, the final layer norm is applied to all of them.

        Args:
            embedded: the embeddings.
            attend: attention of the blocks that attend globally.
            local_attend: attention of the blocks that have a window, if there are any.
            deterministic: no dropout.
            output_hidden_states: return all hidden states.
            num_layers: apply only the first layers, each with the parameters that it has in the
                whole encoder; None: all.
            chosen_positions: return the last hidden state at these positions only, in this order;
                None: at all. See `skips_positions` for what is then not computed.
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
        stacks = self.param("layers", initialize_layers, config, self._halves(config.num_experts))
        keys = None
        if not deterministic:
            shape = (layers, config.inner_group_num, NUM_HALVES)
            keys = jax.random.split(self.make_rng("dropout"), shape)
        constant, varying = split_by_depth(stacks, config.num_hidden_layers)

        has_experts = config.layers_with_experts[:layers]
        length = hidden.shape[1]
        skipping = (
            chosen_positions is not None
            and not output_hidden_states
            and isinstance(length, int)  # symbolic when a program for any length is exported
            and skips_positions(has_experts, chosen_positions.shape[1], length)
        )
        apply_group = functools.partial(
            self._apply_group,
            constant=constant,
            attends=attends,
            deterministic=deterministic,
            output_hidden_states=output_hidden_states,
        )
        states, routings = [hidden], []
        for start, stop, experts in segments(has_experts[: layers - skipping]):
            hidden, (outputs, routing) = scan_layers(
                apply_group(start, has_experts=experts),
                hidden,
                jax.tree.map(lambda x, own=slice(start, stop): x[own], (varying, keys)),
                layers=stop - start,
                period=config.attention_period,
                execution=self.execution,
            )
            routings += routing
            # One array [layers, ...] per inner block; none unless hidden states are returned.
            states += [block for layer in zip(*outputs, strict=True) for block in layer]
        if skipping:
            last = layers - 1
            apply_chosen = apply_group(last, has_experts=False, chosen_positions=chosen_positions)
            apply_last = rematerialize(
                functools.partial(apply_chosen, 0), self.execution.remat, in_loop=False
            )
            hidden, _ = apply_last(hidden, jax.tree.map(lambda x: x[last], (varying, keys)))
        if routings:
            total = jax.tree.map(lambda *layers: sum(x.sum(0) for x in layers), *routings)
            self.sow("intermediates", ROUTING, total)
        states = states if output_hidden_states else [hidden]
        if config.norm.is_before:
            norm = normalization(config, self.dtype, "layer_norm")
            states = list(map(norm, states))
        hidden = states[-1]
        if chosen_positions is not None and not skipping:
            hidden = gather_positions(hidden, chosen_positions)
        return hidden, tuple(states) if output_hidden_states else None

    def _halves(self, has_experts: bool | int, *, local: bool = False) -> dict[str, nn.Module]:
        options = self.config, self.dtype, self.execution
        return {
            "attention": SelfAttention(*options, local=local, parent=None),
            "feed_forward": FeedForward(*options, bool(has_experts), parent=None),
        }

    def _apply_group(
        self,
        start: int,
        *,
        constant: Params,
        attends: Mapping[bool, AttentionFn],
        has_experts: bool,
        deterministic: bool,
        output_hidden_states: bool,
        chosen_positions: AnyArray | None = None,
    ) -> ApplyLayer:
        """Return the body of the scan over layers.

        Args:
            start: number of the first of these layers.
            constant: the parameters that all layers share.
            attends: attention functions, by whether a block is local.
            has_experts: whether these layers have experts.
            deterministic: no dropout.
            output_hidden_states: keep the output of each inner block.
            chosen_positions: positions that the last inner block outputs; None: all.
        """
        config = self.config
        halves = {local: self._halves(has_experts, local=local) for local in attends}
        routes = has_experts and self.is_mutable_collection("intermediates")

        def apply(
            half: nn.Module, params: Params, hidden: Array, rngs: Any, local: bool, inner: int
        ) -> tuple[Array, Any]:
            is_last = inner == config.inner_group_num - 1
            output: Any = half.apply(
                {"params": params},
                *(hidden, attends[local]),
                deterministic=deterministic,
                chosen_positions=chosen_positions if is_last else None,
                rngs=rngs,
                mutable=["intermediates"] if routes else False,
            )
            return output if routes else (output, {})

        def apply_group(
            number: int, hidden: Array, xs: tuple[Params, Array | None]
        ) -> tuple[Array, Any]:
            varying, keys = xs
            layer = constant | varying
            outputs: list[Array] = []
            routings: list[Routing] = []
            for inner in range(config.inner_group_num):
                block = jax.tree.map(lambda leaf, inner=inner: leaf[inner], layer)
                local = not config.is_global((start + number) * config.inner_group_num + inner)
                hidden = add_embedding(hidden, block, config)
                for half_number, (name, half) in enumerate(halves[local].items()):
                    params = half_of_layer(block, name, config)
                    rngs = None if keys is None else {"dropout": keys[inner, half_number]}
                    hidden, sown = apply(half, params, hidden, rngs, local, inner)
                    routings += sown.get("intermediates", {}).get(ROUTING, ())
                outputs.append(hidden)
            return hidden, (outputs if output_hidden_states else (), routings)

        return apply_group


def skips_positions(layers_with_experts: Sequence[bool], chosen: int, length: int) -> bool:
    """Return True if the last layer computes what follows attention at chosen positions only.

    Nothing reads the other positions. In pre-training these are neither predicted nor the start of
    a pair; skipping them saves 5 % of the operations of a step of ALBERT base. A last layer with
    experts skips none, since routing counts all positions.

    Args:
        layers_with_experts: for each layer that is applied, whether it has experts.
        chosen: number of positions whose output is read.
        length: number of positions of a row.
    """
    return chosen < length and not layers_with_experts[-1]


def encoder_shapes(config: AlbertConfig) -> dict[str, tuple[int, ...]]:
    """Return the shape of every parameter of the encoder.

    Example: ``{"layers/attention/query/kernel": (1, 1, 768, 768), …}``
    """

    def initialize(key: Array) -> Params:
        embedded = jnp.zeros((1, 1, config.embedding_size))
        variables = AlbertEncoder(config).init(
            *(key, embedded, dot_product_attention),
            local_attend=dot_product_attention,
            deterministic=True,
            output_hidden_states=False,
        )
        return cast(Params, variables["params"])

    shapes = jax.eval_shape(initialize, jax.random.key(0))
    return {name: leaf.shape for name, leaf in flatten_dict(shapes, sep="/").items()}
