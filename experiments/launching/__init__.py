"""Launching: jobs of several commands as processes of this machine, or as Slurm arrays."""

from albert_jax.lazy_exports import lazy_exports

__getattr__, __all__ = lazy_exports(
    __name__,
    {
        "job": ["Command", "Job"],
        "devices": ["DeviceShare", "divide_devices"],
        "processes": ["LocalLauncher", "Outcome", "State"],
        "slurm": ["shell_lines", "write_slurm_scripts"],
    },
)
