"""Floating-point operations of a training step, and the peak rates of devices."""

import jax
from jax.sharding import Mesh

from albert_jax.config import AlbertConfig
from albert_jax.decoder.config import Gpt2Config
from albert_jax.devices.specifications import specification
from albert_jax.encoder import skips_positions
from albert_jax.positions import position_encoder


def training_flops_per_row(
    config: AlbertConfig,
    *,
    length: int,
    predictions: int,
    pairs: int = 1,
    generator: AlbertConfig | None = None,
) -> int:
    """Return the operations of all matmuls of a row, forward and backward, without recomputation.

    Per layer, the dense matmuls take ``length · (8 H² + 4 H F)``. With a gate of width W, ``6 H W``
    replaces ``4 H F``. E experts of rank r add ``length · (2 H E + 4 E r (H + F))``, since all are
    computed, which is ``E / k`` times what the k chosen ones would take. Attention takes
    ``4 · length² · H``, or 4 H for each pair of a query and a key in a window, and twice that with
    learned relative positions.

    Outside the layers, the embedding mapping takes ``2 · length · E · H``, the masked-LM head
    ``predictions · (2 H E + 2 E V)``, and pooler and sentence-order head ``2 H² + 4 H`` per pair.
    The backward pass costs twice the forward pass. Example: base at length 512 with 77 predictions,
    292.04 GFLOP.

    A generator of replaced tokens adds its layers and embedding mapping. The masked-LM head then
    has its width, and the detection head takes ``length · (2 H² + 2 H)``.

    Args:
        config: the model's sizes.
        length: number of positions of a row.
        predictions: number of prediction slots of a row.
        pairs: number of pairs of a row.
        generator: the generator's sizes, if tokens are replaced; its layers may be the model's own.
    """
    hidden = config.hidden_size
    heads = pairs * (2 * hidden**2 + 4 * hidden)
    heads += masked_lm_flops(generator or config, predictions)
    if generator is not None:
        heads += length * (2 * hidden**2 + 2 * hidden)
    encoders = [config] if generator is None else [generator, config]
    layers = sum(dense_flops(one, length) + attention_flops(one, length) for one in encoders)
    return 3 * (layers + heads)


def pretraining_flops_per_row(
    config: AlbertConfig,
    *,
    length: int,
    predictions: int,
    pairs: int = 1,
    generator: AlbertConfig | None = None,
) -> int:
    """Return the operations of all matmuls of a row in pre-training, forward and backward.

    They are those of `training_flops_per_row`, which takes the same arguments, minus what no head
    reads. After the last attention, the model computes only the positions that are predicted and
    the starts of pairs; with a generator, only the generator skips positions, all but the predicted
    ones. Example: base at length 512 with 77 predictions, 278.21 GFLOP.
    """
    row = {"length": length, "predictions": predictions, "pairs": pairs}
    every = training_flops_per_row(config, **row, generator=generator)
    if generator is not None:
        return every - 3 * skipped_flops(generator, length=length, chosen=predictions)
    return every - 3 * skipped_flops(config, length=length, chosen=predictions + pairs)


def skipped_flops(config: AlbertConfig, *, length: int, chosen: int) -> int:
    """Return the forward operations of the last layer at positions of a row that nothing reads.

    Args:
        config: the model's sizes.
        length: number of positions of a row.
        chosen: number of positions that are read.
    """
    if not skips_positions(config.layers_with_experts, chosen, length):
        return 0
    hidden, matrices = config.hidden_size, 3 if config.feed_forward.is_gated else 2
    return (length - chosen) * (2 * hidden**2 + 2 * matrices * hidden * config.feed_forward_width)


def prediction_flops_per_row(config: AlbertConfig, *, length: int, predictions: int) -> int:
    """Return the forward operations of all matmuls of a row's masked-LM predictions."""
    dense, masked_lm = dense_flops(config, length), masked_lm_flops(config, predictions)
    skipped = skipped_flops(config, length=length, chosen=predictions)
    return dense + attention_flops(config, length) + masked_lm - skipped


def seq2seq_flops_per_row(
    config: AlbertConfig, decoder: Gpt2Config, *, source: int, target: int
) -> int:
    """Return the operations of all matmuls of a pair, forward and backward, without recomputation.

    In addition to the encoder, each layer of the decoder takes
    ``target · (12 D² + 4 D F) + source · 4 D²`` for the dense matmuls and
    ``4 · target · (target + source) · D`` for both attentions. The logits take
    ``2 · target · D · V``, and the layer between widths, if they differ, ``2 · source · H · D``.

    Args:
        config: the encoder's sizes.
        decoder: the decoder's sizes.
        source: number of positions of a source.
        target: number of positions of a target.
    """
    width, encoder_width = decoder.n_embd, config.hidden_size
    layer = target * (12 * width**2 + 4 * width * decoder.inner_size) + 4 * source * width**2
    layer += 4 * target * (target + source) * width
    mapping = 0 if width == encoder_width else 2 * source * encoder_width * width
    forward = decoder.n_layer * layer + 2 * target * width * decoder.vocab_size + mapping
    encoder = training_flops_per_row(config, length=source, predictions=0, pairs=0)
    return encoder + 3 * forward


def dense_flops(config: AlbertConfig, positions: int) -> int:
    """Return the forward operations of the layers' dense matmuls and of the embedding mapping."""
    hidden, depth = config.hidden_size, config.num_hidden_layers * config.inner_group_num
    matrices = 3 if config.feed_forward.is_gated else 2
    layer = positions * (8 * hidden**2 + 2 * matrices * hidden * config.feed_forward_width)
    mapping = 2 * positions * config.embedding_size * hidden if config.has_embedding_mapping else 0
    return depth * layer + mapping + _expert_flops(config, positions)


def _expert_flops(config: AlbertConfig, positions: int) -> int:
    """Return the forward operations of routers and of all experts, chosen or not."""
    matrices = 3 if config.feed_forward.is_gated else 2
    hidden, ranks = config.hidden_size, config.num_experts * config.expert_rank
    experts = 2 * matrices * ranks * (hidden + config.feed_forward_width)
    applications = sum(config.layers_with_experts) * config.inner_group_num
    return applications * positions * (2 * hidden * config.num_experts + experts)


def attention_flops(config: AlbertConfig, length: int) -> int:
    """Return the forward operations of a row's scores and contexts in all layers."""
    positions, reach = position_encoder(config), config.attention_reach

    def of_application(number: int) -> int:
        pairs = pairs_in_window(length, None if config.is_global(number) else reach)
        return 4 * pairs * config.hidden_size + positions.flops(pairs)

    return sum(map(of_application, range(config.num_hidden_layers * config.inner_group_num)))


def pairs_in_window(length: int, reach: int | None) -> int:
    """Return the number of pairs of positions at most `reach` from each other; None: all pairs.

    Example: 4 positions with a reach of 1 have 10 pairs: 4 of a position with itself, and 3 of
    neighbors, which count twice.
    """
    reach = length - 1 if reach is None else min(reach, length - 1)
    return length * (2 * reach + 1) - reach * (reach + 1)


def masked_lm_flops(config: AlbertConfig, predictions: int) -> int:
    """Return the forward operations of the masked-LM head."""
    return 2 * predictions * config.embedding_size * (config.hidden_size + config.vocab_size)


def peak_flops(device: jax.Device) -> float | None:
    """Return the peak of a device in bfloat16 FLOP/s, or None if it is unknown."""
    found = specification(device)
    return None if found is None else found.peak_flops


def mesh_peak_flops(mesh: Mesh) -> float | None:
    """Return the summed peak of all devices of a mesh, or None if one of them is unknown."""
    peaks = [peak_flops(device) for device in mesh.devices.flat]
    return sum(peak for peak in peaks if peak) if all(peaks) else None
