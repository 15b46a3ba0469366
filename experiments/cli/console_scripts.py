"""Console scripts: ``albert-pretrain`` is ``python -m experiments.pretrain``, and so on."""

import runpy
import sys
from pathlib import Path

_PREFIX = "albert-"


def run_module() -> None:
    """Run the command that the script's own name stands for.

    Example: ``/usr/bin/albert-build-corpus`` runs `data_pipeline.build_corpus`.
    """
    name = Path(sys.argv[0]).stem.removeprefix(_PREFIX).replace("-", "_")
    package = "data_pipeline" if name == "build_corpus" else "experiments"
    runpy.run_module(f"{package}.{name}", run_name="__main__", alter_sys=True)
