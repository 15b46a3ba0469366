"""Replaced-token detection (Clark et al. 2020): generator, samples, discriminator and objective."""

from albert_jax.tasks.replaced_tokens.model import AlbertForReplacedTokens
from albert_jax.tasks.replaced_tokens.objective import replaced_tokens_objective

__all__ = ["AlbertForReplacedTokens", "replaced_tokens_objective"]
