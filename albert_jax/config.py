"""What an ALBERT is: the released configuration fields, the ablations, and the released sizes."""

import dataclasses
import json
import os
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any


def as_choice(enum: type[StrEnum], name: str, value: Any) -> StrEnum:
    """The member that a value names.

    Raises:
        ValueError: there is none; the message gives the knob's `name` and the choices.
    """
    try:
        return enum(value)
    except ValueError:
        raise ValueError(f"{name} must be one of {', '.join(enum)}, got {value!r}") from None


class HiddenAct(StrEnum):
    """Activation of the feed-forward layer and of the masked-LM head.

    The released files call the tanh form of GELU ``gelu``; others use that word for the erf form,
    so the erf form has a name of its own here.
    """

    GELU = "gelu"
    GELU_ERF = "gelu_erf"
    RELU = "relu"
    TANH = "tanh"
    LINEAR = "linear"

    @classmethod
    def _missing_(cls, value: object) -> "HiddenAct | None":
        return cls.LINEAR if value in ("", None) else None


class ParameterSharing(StrEnum):
    """Which half of a layer all layers of a group share (ALBERT §4.5, Table 4)."""

    ALL = "all"
    ATTENTION = "attention"
    FFN = "ffn"
    NONE = "none"


class EmbeddingMapping(StrEnum):
    """When the dense map from embedding to hidden size exists: the paper's rule, or always."""

    WHEN_NEEDED = "when_needed"
    ALWAYS = "always"


class PositionEncoding(StrEnum):
    """How a piece knows where it stands.

    All but the first look at distances alone. They count along the row, which inside a pair of a
    packed row is the same as inside the pair, and know no longest row.
    """

    ABSOLUTE = "absolute"  # a learned vector for each position, added to the piece's (the paper)
    # Learned keys and values for each distance up to `max_relative_distance`, one for all beyond
    # it; shared by heads and layers (Shaw et al. 2018).
    RELATIVE_LOCAL = "relative_local"
    ROTARY = "rotary"  # queries and keys turned by angles that grow along the row (Su et al. 2021)
    NONE = "none"  # not at all: the token type alone tells one segment from the other


class Norm(StrEnum):
    """Where a layer's two layer norms stand: after each sum, as in the paper, or before each half.

    Normed before, the layers' sum itself is normed once more when it leaves the last of them.
    """

    POST = "post"
    PRE = "pre"


class Initialization(StrEnum):
    """What the standard deviation of initial weights is.

    Wide models came to need a smaller one: the authors' later ones, of 768 to 4096, have 0.02,
    0.02, 0.014 and 0.01, which is ``hidden_size`` from 0.02 on.
    """

    FIXED = "fixed"  # initializer_range, whatever the width
    HIDDEN_SIZE = "hidden_size"  # that times sqrt(1024 / hidden_size), and not above it
    FAN_IN = "fan_in"  # of each dense layer, that times sqrt(1024 / its own inputs)


class ProblemType(StrEnum):
    """What the scores of a classifier mean."""

    SINGLE_LABEL = "single_label_classification"
    MULTI_LABEL = "multi_label_classification"
    REGRESSION = "regression"


@dataclasses.dataclass(frozen=True)
class HeadConfig:
    """A classifier on top of the encoder: what it tells apart. Regression has a single label.

    Raises:
        ValueError: a value is out of range; the message names the field.
    """

    labels: tuple[str, ...] = ("LABEL_0", "LABEL_1")  # in the order of the scores
    problem_type: ProblemType = ProblemType.SINGLE_LABEL
    classifier_dropout_prob: float = 0.1  # in training, of what the classifier reads

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", tuple(self.labels))
        kind = as_choice(ProblemType, "head.problem_type", self.problem_type)
        object.__setattr__(self, "problem_type", kind)
        if not self.labels or len(set(self.labels)) < len(self.labels):
            raise ValueError(f"head.labels must be at least one, all different: {self.labels}")
        if not 0 <= self.classifier_dropout_prob < 1:
            raise ValueError(
                "head.classifier_dropout_prob must be in [0, 1), "
                f"got {self.classifier_dropout_prob!r}"
            )

    @property
    def num_labels(self) -> int:
        """The number of scores."""
        return len(self.labels)


@dataclasses.dataclass(frozen=True)
class AlbertConfig:
    """Configuration of an ALBERT under the released field names.

    The defaults are those of the released code, which are the sizes of xxlarge; a released JSON
    that leaves a field out means these. `AlbertConfig.from_name("base_v1")` gives a released size.

    Raises:
        ValueError: a value is out of range; the message names the field, what it got and what it
            may be.
    """

    vocab_size: int = 30000  # pieces in the vocabulary
    embedding_size: int = 128  # width of the embedding tables (E)
    hidden_size: int = 4096  # width of the layers (H)
    num_hidden_layers: int = 12  # applications of a group of blocks (L)
    num_hidden_groups: int = 1  # groups of layers, each with parameters of its own (G)
    inner_group_num: int = 1  # blocks applied one after another in a group
    num_attention_heads: int = 64
    intermediate_size: int = 16384  # width inside the feed-forward layer (F)
    hidden_act: HiddenAct = HiddenAct.GELU
    hidden_dropout_prob: float = 0.0
    attention_probs_dropout_prob: float = 0.0
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02  # standard deviation before truncation at two of them

    # What the released JSONs do not know. Written to JSON only where it differs from the default.
    layer_norm_eps: float = 1e-12
    parameter_sharing: ParameterSharing = ParameterSharing.ALL
    embedding_mapping: EmbeddingMapping = EmbeddingMapping.WHEN_NEEDED
    position_encoding: PositionEncoding = PositionEncoding.ABSOLUTE
    max_relative_distance: int = 16  # of relative_local: the farthest that is told apart
    norm: Norm = Norm.POST
    initialization: Initialization = Initialization.FIXED
    tie_word_embeddings: bool = True  # the masked-LM head scores by the word table itself

    # Keys of a JSON that the model does not read (`down_scale_factor`, ...), kept for writing.
    extra: Mapping[str, Any] = dataclasses.field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(field.type, type) and issubclass(field.type, StrEnum):
                object.__setattr__(
                    self, field.name, as_choice(field.type, f"model.{field.name}", value)
                )
            elif field.type is bool and type(value) is not bool:
                raise ValueError(f"model.{field.name} must be true or false, got {value!r}")
            elif field.type is int and (type(value) is not int or value < 1):
                raise ValueError(f"model.{field.name} must be a whole number >= 1, got {value!r}")
            elif field.type is float:  # the released files write a dropout of 0 as a whole number
                if type(value) not in (int, float):
                    raise ValueError(f"model.{field.name} must be a number, got {value!r}")
                object.__setattr__(self, field.name, float(value))
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"model.{name} must be in [0, 1), got {getattr(self, name)!r}")
        for name in ("initializer_range", "layer_norm_eps"):
            if not getattr(self, name) > 0:
                raise ValueError(f"model.{name} must be > 0, got {getattr(self, name)!r}")
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"model.hidden_size ({self.hidden_size}) must be a multiple of "
                f"model.num_attention_heads ({self.num_attention_heads})"
            )
        width = self.hidden_size // self.num_attention_heads
        if self.position_encoding is PositionEncoding.ROTARY and width % 2:
            raise ValueError(
                f"model.position_encoding=rotary turns pairs: model.hidden_size / "
                f"model.num_attention_heads ({width}) must be even"
            )
        if self.num_hidden_groups > self.num_hidden_layers:
            raise ValueError(
                f"model.num_hidden_groups ({self.num_hidden_groups}) must be at most "
                f"model.num_hidden_layers ({self.num_hidden_layers})"
            )

    @property
    def has_embedding_mapping(self) -> bool:
        """Whether a dense layer leads from the embeddings to the layers."""
        always = self.embedding_mapping is EmbeddingMapping.ALWAYS
        return always or self.embedding_size != self.hidden_size

    @property
    def longest_row(self) -> int | None:
        """Positions of the longest row that can be encoded; None where they have no table."""
        if self.position_encoding is PositionEncoding.ABSOLUTE:
            return self.max_position_embeddings
        return None

    @property
    def attention_copies(self) -> int:
        """How many sets of attention parameters there are (times `inner_group_num`)."""
        shared = self.parameter_sharing in (ParameterSharing.ALL, ParameterSharing.ATTENTION)
        return self.num_hidden_groups if shared else self.num_hidden_layers

    @property
    def feed_forward_copies(self) -> int:
        """How many sets of feed-forward parameters there are (times `inner_group_num`)."""
        shared = self.parameter_sharing in (ParameterSharing.ALL, ParameterSharing.FFN)
        return self.num_hidden_groups if shared else self.num_hidden_layers

    @classmethod
    def from_name(cls, name: str) -> "AlbertConfig":
        """One of the released sizes, such as ``base_v1``, ``xxlarge_v2``, ``large_zh``.

        Raises:
            ValueError: no such size; the message lists those there are.
        """
        try:
            return cls(**_RELEASED_SIZES[name])
        except KeyError:
            known = ", ".join(_RELEASED_SIZES)
            raise ValueError(f"no released size is called {name!r}; there are {known}") from None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "AlbertConfig":
        """From the content of a released JSON; unknown keys are kept in `extra`."""
        known = {field.name for field in dataclasses.fields(cls)} - {"extra"}
        return cls(
            **{key: value for key, value in values.items() if key in known},
            extra={key: value for key, value in values.items() if key not in known},
        )

    def to_dict(self) -> dict[str, Any]:
        """The content of a released JSON: every released field, what we added if it is not the
        default, and `extra`."""
        values = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name == "extra" or (field.name in _ADDED_FIELDS and value == field.default):
                continue
            values[field.name] = str(value) if isinstance(value, StrEnum) else value
        return values | dict(self.extra)

    @classmethod
    def from_json_file(cls, path: str | os.PathLike[str]) -> "AlbertConfig":
        """Reads a released ``albert_config.json``."""
        return cls.from_dict(json.loads(Path(path).read_text(encoding="utf-8")))

    def to_json_file(self, path: str | os.PathLike[str]) -> None:
        """Writes a JSON that `from_json_file` and the released code read."""
        Path(path).write_text(json.dumps(self.to_dict(), indent=2) + "\n", encoding="utf-8")


_ADDED_FIELDS = frozenset(
    {
        *("layer_norm_eps", "parameter_sharing", "embedding_mapping", "position_encoding"),
        *("max_relative_distance", "norm", "initialization", "tie_word_embeddings"),
    }
)


def _size(layers: int, hidden: int, heads: int, **others: Any) -> dict[str, Any]:
    return {
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "intermediate_size": 4 * hidden,
        **others,
    }


_V1 = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
_ZH = {"vocab_size": 21128, "hidden_act": HiddenAct.RELU}

# The head count of xlarge is in doubt: the paper's rule (one head for 64 units) and the v2 release
# say 32, the published v1 graph fits 16. It changes no parameter's shape, so nothing that reads
# weights may trust this table: the JSON beside the weights decides.
_RELEASED_SIZES: Mapping[str, dict[str, Any]] = {
    "base_v1": _size(12, 768, 12, **_V1),
    "large_v1": _size(24, 1024, 16, **_V1),
    "xlarge_v1": _size(24, 2048, 16, **_V1),
    "xxlarge_v1": _size(12, 4096, 64),
    "base_v2": _size(12, 768, 12),
    "large_v2": _size(24, 1024, 16),
    "xlarge_v2": _size(24, 2048, 32),
    "xxlarge_v2": _size(12, 4096, 64),
    "tiny_zh": _size(4, 312, 12, **_ZH),
    "small_zh": _size(6, 384, 12, **_ZH),
    "base_zh": _size(12, 768, 12, **_ZH),
    "large_zh": _size(24, 1024, 16, **_ZH),
    "xlarge_zh": _size(24, 2048, 16, **_ZH, initializer_range=0.014),
    "xxlarge_zh": _size(12, 4096, 16, **_ZH, initializer_range=0.01),
}
