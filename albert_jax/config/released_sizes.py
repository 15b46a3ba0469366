"""Sizes of the released models, by name."""

from collections.abc import Mapping
from typing import Any

from albert_jax.config.choices import HiddenAct


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

# The head count of xlarge is in doubt: the paper's rule (one head per 64 units) and the v2 release
# say 32, but the published v1 graph fits 16. It changes no parameter's shape, so code that reads
# weights must not trust this table: the JSON beside the weights decides.
RELEASED_SIZES: Mapping[str, dict[str, Any]] = {
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
