"""Command line: flags, configurations, exit statuses and joining the processes of a run."""

from albert_jax.lazy_exports import lazy_exports

__getattr__, __all__ = lazy_exports(
    __name__,
    {
        "command": ["call", "run"],
        "config_dicts": ["from_config_dict", "from_json", "to_config_dict", "to_json"],
        "config_flag": ["define_config_flag", "read_config_flag"],
        "exit_codes": ["ExitCode"],
        "hosts": ["LostProcessError", "joined_hosts"],
    },
)
