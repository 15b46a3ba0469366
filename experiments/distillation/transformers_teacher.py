"""Any masked language model of Hugging Face transformers as a teacher, on the host or a GPU.

A packed row is split, and such a model reads each of its pairs as a separate sequence.
"""

import hashlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from albert_jax.batch import PretrainingBatch, TeacherPredictions
from albert_jax.durable_files import hash_file
from albert_jax.interop.hub import local_path
from albert_jax.tasks.distillation import DistillationConfig
from data_pipeline.errors import InputError
from experiments.distillation.compatibility import FLAG

_MOST_LOGITS = 1 << 27  # at a time: 512 MB of float32
_EXTRA = "pip install 'albert-jax[interop]'"


class Sequence(NamedTuple):
    """A pair of a row, with its positions and its slots in use."""

    row: int
    begin: int
    end: int
    slots: np.ndarray


def sequences_of(batch: PretrainingBatch) -> list[Sequence]:
    """Return the pairs of a batch that have slots, the longest first."""
    ids, positions = np.asarray(batch.sequence_ids), np.asarray(batch.masked_lm_positions)
    used = np.asarray(batch.masked_lm_weights) > 0
    found = []
    for row in range(len(ids)):
        for pair in range(1, ids[row].max() + 1):
            places = np.flatnonzero(ids[row] == pair)
            slots = np.flatnonzero(used[row] & (ids[row][positions[row]] == pair))
            if len(slots):
                found.append(Sequence(row, int(places[0]), int(places[-1]) + 1, slots))
    return sorted(found, key=lambda one: one.begin - one.end)


class TransformersTeacher:
    """A model that `AutoModelForMaskedLM` reads.

    Args:
        source: a directory of transformers, or a name on the hub.
        config: how many tokens are kept, and the temperature.
        device: a torch device, such as ``cuda``; None takes a GPU if there is one.

    Attributes:
        path: the source.
        fingerprint: SHA-256 of its configuration and weights.
        vocab_size: number of tokens that it predicts.
        longest_row: length of its position table; None if it has none.
        type_vocab_size: number of segments that it distinguishes. A model without token types has
            2, as it accepts any pair.

    Raises:
        InputError: torch or transformers is missing, or there is no such model.
    """

    def __init__(self, source: str, config: DistillationConfig, device: str | None = None) -> None:
        try:
            import torch
            import transformers
        except ImportError as error:
            needed = "recording a teacher needs torch and transformers"
            raise InputError(f"{needed}: {_EXTRA}") from error
        directory = Path(local_path(source, error=InputError))
        if not directory.is_dir():
            raise InputError(f"{FLAG}={source}: there is no such directory")
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        try:
            model, found = transformers.AutoModelForMaskedLM.from_pretrained(
                directory, dtype=torch.float32, trust_remote_code=False, output_loading_info=True
            )
            self._model = model.eval().to(device)
        except (OSError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise InputError(f"{FLAG}={source} is no masked language model: {reason}") from error
        if missing := sorted(found["missing_keys"]):  # transformers has initialized them at random
            raise InputError(f"{FLAG}={source} lacks weights: {', '.join(missing)}")
        self.path, self.fingerprint = source, _fingerprint(directory)
        self.vocab_size = int(model.config.vocab_size)
        self.longest_row: int | None = getattr(model.config, "max_position_embeddings", None)
        takes_types = "token_type_ids" in inspect.signature(model.forward).parameters
        self._takes_types = takes_types and getattr(model.config, "type_vocab_size", 0) > 0
        self.type_vocab_size = model.config.type_vocab_size if self._takes_types else 2
        self._config, self._device = config, device

    def predict(self, batch: PretrainingBatch) -> TeacherPredictions:
        """Return the most probable tokens at the slots in use, and zeros elsewhere."""
        shape = (*np.shape(batch.masked_lm_positions), self._config.top_k)
        token_ids, log_probs = np.zeros(shape, np.int32), np.zeros(shape, np.float32)
        for some in self._groups(sequences_of(batch)):
            for one, (tokens, logs) in zip(some, self._score(batch, some), strict=True):
                token_ids[one.row, one.slots], log_probs[one.row, one.slots] = tokens, logs
        return TeacherPredictions(token_ids, log_probs)  # type: ignore[arg-type]  # on the host

    def _groups(self, sequences: list[Sequence]) -> Iterator[list[Sequence]]:
        """Yield the sequences in groups whose logits stay below `_MOST_LOGITS`."""
        while sequences:
            length = sequences[0].end - sequences[0].begin
            count = max(1, _MOST_LOGITS // (length * self.vocab_size))
            yield sequences[:count]
            sequences = sequences[count:]

    def _score(
        self, batch: PretrainingBatch, sequences: list[Sequence]
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the tokens and log-probabilities at the slots of each sequence."""
        import torch

        rows = self._inputs(batch, sequences)
        inputs = {name: torch.tensor(x, device=self._device) for name, x in rows}
        positions = np.asarray(batch.masked_lm_positions)
        with torch.inference_mode():
            logits = self._model(**inputs).logits
            for number, one in enumerate(sequences):
                places = torch.tensor(positions[one.row, one.slots] - one.begin)
                scaled = logits[number, places.to(self._device)].float() / self._config.temperature
                best = torch.log_softmax(scaled, dim=-1).topk(self._config.top_k, dim=-1)
                yield best.indices.cpu().numpy(), best.values.cpu().numpy()

    def _inputs(
        self, batch: PretrainingBatch, sequences: list[Sequence]
    ) -> Iterator[tuple[str, np.ndarray]]:
        """Yield the model's arguments: sequences padded to the length of the first, the longest."""
        fields: dict[str, Any] = {"input_ids": batch.input_ids}
        if self._takes_types:
            fields["token_type_ids"] = batch.token_type_ids
        fields["attention_mask"] = np.ones(np.shape(batch.input_ids), np.int32)
        for name, values in fields.items():
            rows = np.zeros((len(sequences), sequences[0].end - sequences[0].begin), np.int64)
            for number, one in enumerate(sequences):
                words = np.asarray(values)[one.row, one.begin : one.end]
                rows[number, : len(words)] = words
            yield name, rows


def _fingerprint(directory: Path) -> str:
    files = [directory / "config.json"]
    files += sorted([*directory.glob("*.safetensors"), *directory.glob("*.bin")])
    digests = "".join(f"{file.name} {hash_file(file)}\n" for file in files)
    return hashlib.sha256(digests.encode()).hexdigest()
