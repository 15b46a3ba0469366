"""A model as an encoder for MTEB, and MTEB's task STSBenchmark on local files.

Any task can use it: ``mteb.evaluate(MtebEncoder("runs/base-nli"), mteb.get_tasks(...))``.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from albert_jax.config import Pooling
from data_pipeline.errors import InputError
from data_pipeline.finetuning.similarity.examples import STSB_COLUMNS, read_pairs
from experiments.prediction.embeddings import open_embedder
from experiments.prediction.inference import put_in_order
from experiments.tasks.raw_inputs import PredictionOptions, RawInput

EXTRA = "pip install 'albert-jax[mteb]'"
_SPLIT = "validation"  # of STSBenchmark: GLUE's test scores are not public
_SHOWN = ("cosine_spearman", "cosine_pearson")
_NO_TEXT = "."  # replaces texts that are only white space, which some tasks have


class MtebEncoder:
    """An encoder for `mteb.evaluate`, with the pooling that the model's files name, else the mean.

    Texts that are too long for the model are cut, as other encoders cut them. Prompts are not used.

    Args:
        model: a path for `from_pretrained`.
        revision: the name of the model's state in results.
        device: ignored, as JAX chooses it.
        others: MTEB's other arguments, ignored.
    """

    def __init__(
        self, model: str, revision: str | None = None, *, device: str | None = None, **others: Any
    ) -> None:
        del device, others
        mteb = import_mteb()
        options = PredictionOptions(model, truncate=True)
        self._embedder = open_embedder(options, Pooling.MEAN)
        self.mteb_model_meta = mteb.models.ModelMeta.create_empty(
            {
                "name": f"albert-jax/{os.path.basename(os.path.abspath(model))}",
                "revision": revision or "local",
                "framework": ["JAX"],
                "max_tokens": self._embedder.loaded.max_length,
                "embed_dim": self._embedder.loaded.model.config.hidden_size,
                "similarity_fn_name": "cosine",
            }
        )

    def encode(
        self, inputs: Iterable[Mapping[str, Sequence[str]]], **others: Any
    ) -> Float32[np.ndarray, "texts hidden"]:
        """Return the vectors of the texts in some batches, in order."""
        del others
        texts = [
            RawInput({"text": text if text.strip() else _NO_TEXT}, f"text {number}")
            for batch in inputs
            for number, text in enumerate(batch["text"])
        ]
        return np.stack(put_in_order(self._embedder.vectors(texts), len(texts)))

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Return the cosine of each vector of one set with each vector of the other."""
        return import_mteb().similarity_functions.cos_sim(embeddings1, embeddings2)

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Return the cosine of each pair of vectors."""
        return import_mteb().similarity_functions.pairwise_cos_sim(embeddings1, embeddings2)


def evaluate_on_mteb(
    model: str, names: Sequence[str], stsb_dir: Path | None
) -> dict[str, dict[str, Any]]:
    """Return the results of a model on MTEB tasks, in MTEB's own form, by the tasks' names.

    Args:
        model: a path for `from_pretrained`.
        names: the names of the tasks, which fetch their data.
        stsb_dir: see `open_tasks`.

    Raises:
        InputError: see `open_tasks`; or the data cannot be fetched.
    """
    mteb, tasks = import_mteb(), open_tasks(names, stsb_dir)
    encoder, results = MtebEncoder(model), {}
    for task in tasks:
        name = task.metadata.name
        try:
            found = mteb.evaluate(encoder, task, cache=None, show_progress_bar=False)
        except (ConnectionError, FileNotFoundError) as error:
            raise InputError(f"--mteb={name}: MTEB could not fetch its data: {error}") from error
        (result,) = found.task_results
        results[name] = result.to_dict()
    return results


def format_results(results: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Yield a line with the main score of each task, split and language."""
    for name, result in results.items():
        for split, subsets in result["scores"].items():
            for scores in subsets:
                place = f"{name}, {split}, {scores['hf_subset']}"
                metrics = (f"{m} {scores[m]:.4f}" for m in _SHOWN if m in scores)
                yield f"{place}: {scores['main_score']:.4f} ({', '.join(metrics)})"


def open_tasks(names: Sequence[str], stsb_dir: Path | None) -> list[Any]:
    """Return MTEB tasks.

    Args:
        names: the names of the tasks.
        stsb_dir: directory of STS-B's official files, whose dev split STSBenchmark then uses.

    Raises:
        InputError: a task is unknown, the local files are missing, or they are given without
            STSBenchmark.
    """
    mteb, tasks = import_mteb(), []
    if stsb_dir is not None and "STSBenchmark" not in names:
        raise InputError("--stsb_dir is the data of STSBenchmark, which --mteb does not name")
    for name in names:
        local = name == "STSBenchmark" and stsb_dir is not None
        try:
            # The task that superseded this one has fewer pairs, and papers report this one.
            task = mteb.get_task(name, **({"eval_splits": [_SPLIT]} if local else {}))
        except (KeyError, ValueError) as error:
            raise InputError(f"--mteb={name}: MTEB has no such task: {error.args[0]}") from error
        if local:
            assert stsb_dir is not None
            task.dataset, task.data_loaded = {_SPLIT: _read_stsb(stsb_dir)}, True
        tasks.append(task)
    return tasks


def _read_stsb(directory: Path) -> Any:
    from datasets import Dataset

    path = str(directory / "dev.tsv")
    examples = read_pairs(path, "dev", STSB_COLUMNS, flag="--stsb_dir")
    columns = zip(*((one.anchor, one.positive, one.score) for one in examples), strict=True)
    names = (STSB_COLUMNS.anchor, STSB_COLUMNS.positive, STSB_COLUMNS.score)
    return Dataset.from_dict(dict(zip(names, map(list, columns), strict=True)))


def import_mteb() -> Any:
    """Import MTEB, which takes seconds.

    Raises:
        InputError: it is not installed.
    """
    try:
        import mteb
        import mteb.similarity_functions
    except ImportError as error:
        raise InputError(f"MTEB is not installed: {EXTRA}") from error
    return mteb
