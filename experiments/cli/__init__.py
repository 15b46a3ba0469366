"""Command line: flags, configurations and exit statuses."""

from albert_jax.lazy_exports import lazy_exports

__getattr__, __all__ = lazy_exports(
    __name__,
    {
        "command": ["call", "run"],
        "config_dicts": ["from_config_dict", "from_json", "to_config_dict", "to_json"],
        "config_flag": ["define_config_flag", "read_config_flag"],
        "exit_codes": ["ExitCode"],
    },
)
