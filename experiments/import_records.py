r"""Convert record files of the released generator into a directory to train on.

    python -m experiments.import_records --input_file='records/*.tfrecord' \
        --output_dir=corpora/records
    python -m experiments.pretrain --config=... --config.data.records_dir=corpora/records
"""

import glob
from pathlib import Path

from absl import flags

from data_pipeline.errors import InputError
from data_pipeline.pretraining.tfrecord import import_records
from experiments.cli.command import run
from experiments.cli.exit_codes import ExitCode


def find_files(patterns: list[str]) -> list[Path]:
    """Return the files that the patterns match, in order.

    Raises:
        InputError: a pattern matches no file, or there is no pattern.
    """
    paths: list[Path] = []
    for pattern in patterns:
        found = sorted(glob.glob(pattern))
        if not found:
            raise InputError(f"--input_file={pattern} matches no file")
        paths += map(Path, found)
    if not paths:
        raise InputError("--input_file names no file")
    return paths


def main() -> ExitCode:
    """Read the flags and import the files."""
    directory = Path(flags.FLAGS.output_dir)
    count = import_records(find_files(flags.FLAGS.input_file), directory)
    print(f"{count:,} records in {directory}")
    return ExitCode.DONE


if __name__ == "__main__":
    flags.DEFINE_list(
        "input_file", None, "globs of record files, separated by commas", required=True
    )
    flags.DEFINE_string("output_dir", None, "the directory to write", required=True)
    run(main)
