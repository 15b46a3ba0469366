"""ALBERT base as the paper reports it: another name for `albert_base_v1`, which says more."""

from experiments.configs.albert_base_v1 import get_config

__all__ = ["get_config"]
