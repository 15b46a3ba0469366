"""Converting: the formats that are written, and the card that goes with an export."""

from albert_jax.lazy_exports import lazy_exports

__getattr__, __all__ = lazy_exports(
    __name__,
    {
        "formats": ["Format", "architecture_of", "convert", "list_losses"],
        "generation_files": ["GenerationFiles", "read_generation_files"],
        "model_card": ["format_model_card"],
        "provenance": ["Provenance", "read_provenance"],
    },
)
