"""Configuration of the model: the released fields and the ablations."""

import dataclasses
import json
import math
import os
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

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
from albert_jax.config.released_sizes import RELEASED_SIZES
from albert_jax.input_files import read_json_object
from albert_jax.settings import FieldError, check_settings, setting

# Upper bounds, far beyond what anyone has trained: a typo or a damaged file is refused before
# anything of that size is built.
_MOST_TOKENS = 10_000_000
_WIDEST = 1 << 20
_MOST_LAYERS = 1000

ROTARY_BASE = 10_000.0  # base of the angles of rotary positions (Su et al. 2021)
ALL_LAYERS = "all"  # a value of `AlbertConfig.expert_layers`
_WIDTH_MULTIPLE = 8  # widths of gated feed-forward layers are multiples of it, for matmul units


@dataclasses.dataclass(frozen=True)
class AlbertConfig:
    """Configuration of an ALBERT, with the released field names.

    The defaults are those of the released code, which are the sizes of xxlarge; they also apply to
    fields that a released JSON omits. `AlbertConfig.from_name("base_v1")` gives a released size.

    Raises:
        FieldError: a value is not allowed.
    """

    vocab_size: int = setting(
        30000,
        "tokens in the vocabulary; in pre-training, those of the corpus",
        at_least=1,
        at_most=_MOST_TOKENS,
    )
    embedding_size: int = setting(
        128, "width of the embedding tables (E)", at_least=1, at_most=_WIDEST
    )
    hidden_size: int = setting(4096, "width of the layers (H)", at_least=1, at_most=_WIDEST)
    num_hidden_layers: int = setting(
        12,
        "layers, each an application of a group of blocks (L)",
        at_least=1,
        at_most=_MOST_LAYERS,
    )
    num_hidden_groups: int = setting(
        1,
        "groups of layers, each with parameters of its own (G)",
        at_least=1,
        at_most=_MOST_LAYERS,
    )
    inner_group_num: int = setting(
        1, "blocks of a group, applied one after another", at_least=1, at_most=100
    )
    num_attention_heads: int = setting(64, "attention heads", at_least=1, at_most=_WIDEST)
    intermediate_size: int = setting(
        16384, "width inside the feed-forward layer (F)", at_least=1, at_most=_WIDEST
    )
    hidden_act: HiddenAct = setting(
        HiddenAct.GELU, "activation of the feed-forward layer and of the masked-LM head"
    )
    hidden_dropout_prob: float = setting(0.0, "dropout of hidden states", at_least=0, below=1)
    attention_probs_dropout_prob: float = setting(
        0.0, "dropout of attention probabilities", at_least=0, below=1
    )
    max_position_embeddings: int = setting(
        512,
        "rows of the position table, the longest row; follows max_seq_length",
        at_least=1,
        at_most=_WIDEST,
    )
    type_vocab_size: int = setting(
        2, "segments that token types distinguish", at_least=1, at_most=_WIDEST
    )
    initializer_range: float = setting(
        0.02, "standard deviation of initial weights, which are cut at two of them", above=0
    )

    # Fields that the released JSONs lack. They are written to JSON only if not at the default.
    layer_norm_eps: float = setting(1e-12, "added to the variance in layer norm", above=0)
    parameter_sharing: ParameterSharing = setting(
        ParameterSharing.ALL, "which half of a layer all layers of a group share"
    )
    depth_rank: int = setting(
        0,
        "rank of the change that each layer makes to its kernels, shared or not; 0: none",
        at_least=0,
        at_most=_WIDEST,
    )
    depth_signal: DepthSignal = setting(
        DepthSignal.NONE, "what distinguishes the applications of a shared block"
    )
    num_experts: int = setting(
        0,
        "low-rank experts in the feed-forward layer, shared by layers as it is; 0: none",
        at_least=0,
        at_most=1024,
    )
    expert_rank: int = setting(8, "rank of an expert", at_least=1, at_most=_WIDEST)
    experts_per_token: int = setting(
        2, "experts that a token is routed to", at_least=2, at_most=1024
    )
    expert_layers: str = setting(
        ALL_LAYERS,
        "layers whose feed-forward layer has the experts: all, or numbers such as 4,8,12",
    )
    embedding_mapping: EmbeddingMapping = setting(
        EmbeddingMapping.WHEN_NEEDED, "when a dense layer maps embedding to hidden size"
    )
    position_encoding: PositionEncoding = setting(
        PositionEncoding.ABSOLUTE, "encoding of positions"
    )
    max_relative_distance: int = setting(
        16, "longest distance that relative_local distinguishes", at_least=1, at_most=_WIDEST
    )
    rotary_base: float = setting(
        ROTARY_BASE,
        f"base of rotary angles where attention is global; {ROTARY_BASE:.0f} where it is local",
        above=1,
    )
    attention_window: int = setting(
        0,
        "positions that local attention reaches, half of them on either side; 0: all is global",
        at_least=0,
        at_most=_WIDEST,
    )
    global_every: int = setting(
        3,
        "number of applications of a layer of which the first attends globally, the others locally",
        at_least=1,
        at_most=_MOST_LAYERS,
    )
    norm: Norm = setting(Norm.POST, "norms after each sum, before each half, or around it")
    norm_kind: NormKind = setting(NormKind.LAYER, "kind of norm: layer norm, or RMS norm")
    feed_forward: FeedForwardKind = setting(
        FeedForwardKind.MLP, "feed-forward layer; those with a gate have as many parameters"
    )
    dense_biases: bool = setting(
        True, "biases in the dense layers of the halves; those outside the layers stay"
    )
    initialization: Initialization = setting(Initialization.FIXED, "how initial weights are scaled")
    tie_word_embeddings: bool = setting(
        True, "the word table is also the output matrix of the masked-LM head"
    )

    # Keys of a JSON that the model does not read (`down_scale_factor`, ...), kept for writing.
    extra: Mapping[str, Any] = dataclasses.field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        check_settings(self)
        heads, width = self.num_attention_heads, self.hidden_size
        if width % heads:
            raise FieldError("hidden_size", f"a multiple of num_attention_heads ({heads})", width)
        if self.position_encoding is PositionEncoding.ROTARY and width // heads % 2:
            even = f"an even multiple of num_attention_heads ({heads}) for rotary positions"
            raise FieldError("hidden_size", even, width)
        if self.attention_window % 2:
            raise FieldError("attention_window", "an even number", self.attention_window)
        if self.num_hidden_groups > self.num_hidden_layers:
            most = f"at most num_hidden_layers ({self.num_hidden_layers})"
            raise FieldError("num_hidden_groups", most, self.num_hidden_groups)
        if self.num_experts and self.experts_per_token > self.num_experts:
            most = f"at most num_experts ({self.num_experts})"
            raise FieldError("experts_per_token", most, self.experts_per_token)
        self._expert_layer_numbers()

    def _expert_layer_numbers(self) -> set[int]:
        if not self.num_experts:
            return set()
        last = self.num_hidden_layers
        if self.expert_layers == ALL_LAYERS:
            return set(range(1, last + 1))
        numbers = [part.strip() for part in self.expert_layers.split(",")]
        if not all(part.isdecimal() and 1 <= int(part) <= last for part in numbers):
            allowed = f"{ALL_LAYERS}, or numbers from 1 to num_hidden_layers ({last}) with commas"
            raise FieldError("expert_layers", allowed, self.expert_layers)
        return set(map(int, numbers))

    @property
    def layers_with_experts(self) -> tuple[bool, ...]:
        """True for each layer whose feed-forward layer has experts.

        Example: ``(False, False, True)`` for 3 layers with ``expert_layers="3"``.
        """
        numbers = self._expert_layer_numbers()
        return tuple(number in numbers for number in range(1, self.num_hidden_layers + 1))

    @property
    def has_embedding_mapping(self) -> bool:
        """True if a dense layer maps the embeddings to the hidden size."""
        always = self.embedding_mapping is EmbeddingMapping.ALWAYS
        return always or self.embedding_size != self.hidden_size

    @property
    def feed_forward_width(self) -> int:
        """Units of the feed-forward layer: F, or with a gate about 2 F / 3 (a multiple of 8).

        Example: F = 3072 gives 2048 units with a gate, and F = 512 gives 344.
        """
        if not self.feed_forward.is_gated:
            return self.intermediate_size
        return max(1, round(2 * self.intermediate_size / 3 / _WIDTH_MULTIPLE)) * _WIDTH_MULTIPLE

    def is_global(self, application: int) -> bool:
        """Return True if an application of a layer, counted from 0, has global attention.

        Example: with a window and `global_every` 3, applications 0, 3, 6, ... have it.
        """
        return not self.attention_window or application % self.global_every == 0

    @property
    def attention_reach(self) -> int | None:
        """Farthest position on either side that local attention reaches; None without a window."""
        return self.attention_window // 2 if self.attention_window else None

    @property
    def attention_period(self) -> int:
        """Number of layers after which the pattern of global and local attention repeats."""
        if not self.attention_window:
            return 1
        return self.global_every // math.gcd(self.global_every, self.inner_group_num)

    @property
    def longest_row(self) -> int | None:
        """Length of the longest row that can be encoded; None without a position table."""
        if self.position_encoding is PositionEncoding.ABSOLUTE:
            return self.max_position_embeddings
        return None

    @property
    def attention_copies(self) -> int:
        """Number of sets of attention parameters (times `inner_group_num`)."""
        shared = self.parameter_sharing.shares_attention
        return self.num_hidden_groups if shared else self.num_hidden_layers

    @property
    def feed_forward_copies(self) -> int:
        """Number of sets of feed-forward parameters (times `inner_group_num`)."""
        shared = self.parameter_sharing.shares_feed_forward
        return self.num_hidden_groups if shared else self.num_hidden_layers

    @classmethod
    def from_name(cls, name: str) -> "AlbertConfig":
        """Return a released size, such as ``base_v1``, ``xxlarge_v2``, ``large_zh``.

        Raises:
            ValueError: no such size; the message lists them.
        """
        try:
            return cls(**RELEASED_SIZES[name])
        except KeyError:
            known = ", ".join(RELEASED_SIZES)
            raise ValueError(f"no released size is called {name!r}; there are {known}") from None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "AlbertConfig":
        """Make a configuration from the content of a released JSON; unknown keys go to `extra`."""
        known = {field.name for field in dataclasses.fields(cls)} - {"extra"}
        return cls(
            **{key: value for key, value in values.items() if key in known},
            extra={key: value for key, value in values.items() if key not in known},
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the content of a released JSON: every released field, the added ones that are not
        at their default, and `extra`."""
        values = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name == "extra" or (field.name in _ADDED_FIELDS and value == field.default):
                continue
            values[field.name] = str(value) if isinstance(value, StrEnum) else value
        return values | dict(self.extra)

    @classmethod
    def from_json_file(cls, path: str | os.PathLike[str]) -> "AlbertConfig":
        """Read a released ``albert_config.json``, in which null counts as absent.

        Raises:
            ValueError: it is not a JSON object, or (a `FieldError`) a value is not allowed.
        """
        return cls.from_dict(read_json_object(Path(path), error=ValueError, drop_nulls=True))

    def to_json_file(self, path: str | os.PathLike[str]) -> None:
        """Write a JSON that `from_json_file` and the released code read."""
        Path(path).write_text(json.dumps(self.to_dict(), indent=2) + "\n", encoding="utf-8")


_ADDED_FIELDS = frozenset(
    {
        *("layer_norm_eps", "parameter_sharing", "embedding_mapping", "position_encoding"),
        *("max_relative_distance", "norm", "norm_kind", "feed_forward", "depth_rank"),
        *("depth_signal", "num_experts", "expert_rank", "experts_per_token", "expert_layers"),
        *("dense_biases", "initialization", "tie_word_embeddings"),
        *("rotary_base", "attention_window", "global_every"),
    }
)
