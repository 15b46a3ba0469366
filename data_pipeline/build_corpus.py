"""Build a corpus from text.

    python -m data_pipeline.build_corpus --input='text/*/wiki_*' --format=wikiextractor \
        --output_dir=corpora/wiki_en --vocab_size=30000

The same command resumes an interrupted build. Exit status: 0 done, 2 bad input.
"""

import dataclasses
import json
import logging
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from albert_jax.durable_files import hash_text, write_atomically
from albert_jax.input_files import is_remote
from albert_jax.settings import FieldError
from data_pipeline.build_flags import (
    define_flags,
    read_build_config,
    read_engine_config,
    read_plan_flags,
    require_output_dir,
)
from data_pipeline.building.beam.builder import BeamBuilder
from data_pipeline.building.beam.options import Engine, EngineConfig
from data_pipeline.building.builder import CorpusBuilder
from data_pipeline.building.config import BuildConfig
from data_pipeline.building.report import format_report
from data_pipeline.cache import cache_directory
from data_pipeline.config import DataConfig
from data_pipeline.corpus.metadata import METADATA_FILE
from data_pipeline.corpus.reader import Corpus, open_corpus
from data_pipeline.corpus.splits import TRAIN
from data_pipeline.errors import InputError, storage_failure
from data_pipeline.locks import lock
from data_pipeline.planning.plan import plan_ahead
from data_pipeline.pretraining.display import first_batch, format_batch
from data_pipeline.remote import open_remote, publish
from data_pipeline.terminal import log_in_lines, print_error, protect_output, say, suggest

DONE, BAD_INPUT, INTERRUPTED = 0, 2, 130
_ROWS_TO_INSPECT = 4
_TOKENS_FOR_BASE = 1_000_000_000  # for fewer tokens, suggest the small model


def main(argv: Sequence[str]) -> int:
    """Build the corpus that a command line describes; return the exit status."""
    log_in_lines()
    logging.getLogger("data_pipeline").setLevel(logging.INFO)
    values = define_flags()
    try:
        rest = _parse(values, argv)
        if values.help:
            print(f"{__doc__}\n{values.get_help(include_special_flags=False)}")
            return DONE
        if rest[1:]:
            raise InputError(f"{rest[1]!r} is no flag; a flag is written --name=value")
        if values.inspect:
            inspect(open_corpus(require_output_dir(values), verify=False), seed=values.seed)
            return DONE
        plans = read_plan_flags(values)
        configs, part = plans.configs(), plans.part()
        if plans.plan_only:
            if not configs:
                raise InputError("--plan_only needs --plan, the settings of rows")
            corpus = open_corpus(require_output_dir(values), verify=False)
            plan_rows(corpus, configs, part, values.num_processes)
            return DONE
        config, engine = read_build_config(values), read_engine_config(values)
        corpus = build(config, engine)
        print(format_report(corpus, config.output_dir), flush=True)
        plan_rows(corpus, configs, (0, 1), config.num_processes)
        _suggest_pretraining(config.output_dir, corpus.splits[TRAIN].num_tokens)
    except (flags.Error, InputError, FieldError) as error:
        return _report(str(error))
    except KeyboardInterrupt:
        _report("interrupted; the same command resumes from here")
        return INTERRUPTED
    except Exception as error:
        failure = storage_failure(error)
        if failure is None:
            raise
        return _report(
            f"{failure}; --output_dir={values.output_dir} is not a corpus yet, and the same "
            "command resumes from here"
        )
    return DONE


def _parse(values: flags.FlagValues, argv: Sequence[str]) -> list[str]:
    """Parse the flags and return what is left of the command line."""
    try:
        return values(list(argv))
    except RecursionError:  # raised by absl's recursive search for flags with a similar name
        raise InputError("there is no flag of so long a name") from None
    except UnicodeDecodeError as error:
        raise InputError(f"--flagfile: the file is not UTF-8: {error}") from None


def build(config: BuildConfig, engine: EngineConfig | None = None) -> Corpus:
    """Build a corpus in its output directory.

    For a remote output directory, the local engine builds the corpus in the cache and then copies
    it there.

    Args:
        config: the configuration of the corpus.
        engine: the engine that builds it; None means this machine.
    """
    url = config.output_dir
    if engine and engine.engine is Engine.BEAM:
        BeamBuilder(config, engine).build()
        return open_corpus(url, verify=is_remote(url))
    if not is_remote(url):
        CorpusBuilder(config).build()
        return open_corpus(url, verify=False)
    remote = open_remote(url)
    local = cache_directory() / "builds" / hash_text(url)[:16]
    local.parent.mkdir(parents=True, exist_ok=True)
    with lock(remote, "build"):  # also checks that the store is writable
        if (remote / METADATA_FILE).exists() and not config.overwrite:
            raise InputError(f"--output_dir={url} holds a corpus already; --overwrite replaces it")
        _build_here(dataclasses.replace(config, output_dir=str(local), overwrite=True))
        publish(local, url, METADATA_FILE)
    shutil.rmtree(local)
    _completion(local).unlink()
    return open_corpus(url)


def _suggest_pretraining(output_dir: str, num_tokens: int) -> None:
    experiment = "albert_base" if num_tokens > _TOKENS_FOR_BASE else "albert_small_wiki"
    suggest(
        "experiments.pretrain",
        f"--config={experiment}",
        f"--config.data.corpus_dir={output_dir}",
        f"--workdir=runs/{Path(output_dir).name}",
    )


def _completion(local: Path) -> Path:
    """Return the file that records which build the local copy is the result of."""
    return local.with_name(f"{local.name}.complete")


def _build_here(config: BuildConfig) -> None:
    """Build a corpus in the cache, unless an earlier run built it and stopped while copying it."""
    builder, local = CorpusBuilder(config), Path(config.output_dir)
    complete = _completion(local)
    identity = hash_text(json.dumps(builder.settings))
    is_built = local.exists() and complete.exists() and complete.read_text() == identity
    if not is_built:
        complete.unlink(missing_ok=True)
        builder.build()
        write_atomically(complete, identity)


def plan_rows(
    corpus: Corpus, configs: Sequence[DataConfig], part: tuple[int, int], num_processes: int
) -> None:
    """Plan the rows of a corpus for each configuration, and print where the plans are.

    Args:
        corpus: the corpus.
        configs: the settings of each plan.
        part: the part of the shards to plan, and the number of parts.
        num_processes: how many processes plan at a time; 0 means one per core.

    Raises:
        InputError: the corpus cannot be planned in parts, or is too small.
    """
    for config in configs:
        place, missing = plan_ahead(
            corpus, TRAIN, config, num_processes=num_processes, part=part[0], num_parts=part[1]
        )
        say(f"{place}: {f'{missing} shards are missing' if missing else 'complete'}")


def inspect(corpus: Corpus, *, seed: int) -> None:
    """Print the first batch, in color on a terminal."""
    batch = first_batch(corpus, num_rows=_ROWS_TO_INSPECT, seed=seed)
    print(format_batch(batch, corpus.load_tokenizer(), in_color=sys.stdout.isatty()))


def _report(message: str) -> int:
    print_error(message)
    return BAD_INPUT


if __name__ == "__main__":
    protect_output()
    sys.exit(main(sys.argv))
