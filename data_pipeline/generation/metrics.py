"""BLEU of translations and ROUGE of summaries, in percent, from their reference implementations."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from data_pipeline.errors import InputError

EXTRA = "pip install 'albert-jax[generation]'"


class TextScores(NamedTuple):
    """Metrics of generated texts.

    Attributes:
        metrics: values in percent; higher is better.
        notes: how they were computed.
    """

    metrics: Mapping[str, float]
    notes: Sequence[str]


def bleu(texts: Sequence[str], references: Sequence[str]) -> TextScores:
    """Return sacreBLEU's corpus scores `bleu`, cased, and `bleu_lowercase`, both tokenized by 13a.

    The notes are the signatures, which make such scores comparable (Post 2018).

    Raises:
        InputError: sacrebleu is not installed.
    """
    try:
        from sacrebleu.metrics import BLEU
    except ImportError as error:
        raise InputError(f"BLEU needs sacrebleu: {EXTRA}") from error
    metrics, notes = {}, []
    for name, lowercase in (("bleu", False), ("bleu_lowercase", True)):
        metric = BLEU(lowercase=lowercase)
        # An empty text scores 0. sacreBLEU warns about tokenized input, which ours never is.
        metrics[name] = float(metric.corpus_score(list(texts), [list(references)]).score)
        notes.append(f"{name}: {metric.get_signature()}")
    return TextScores(metrics, notes)


def rouge(texts: Sequence[str], references: Sequence[str]) -> TextScores:
    """Return the mean F1 of `rouge_l` (union over sentences), `rouge_1` and `rouge_2` (Lin 2004).

    Each line of a text counts as a sentence; words are stemmed.

    Raises:
        InputError: rouge-score is not installed.
    """
    try:
        from rouge_score.rouge_scorer import RougeScorer  # type: ignore[import-untyped]
    except ImportError as error:
        raise InputError(f"ROUGE needs rouge-score: {EXTRA}") from error
    names = {"rouge_l": "rougeLsum", "rouge_1": "rouge1", "rouge_2": "rouge2"}
    scorer = RougeScorer(list(names.values()), use_stemmer=True)
    scores = [scorer.score(one, text) for text, one in zip(texts, references, strict=True)]
    metrics = {
        name: 100 * float(np.mean([score[of_library].fmeasure for score in scores]))
        for name, of_library in names.items()
    }
    return TextScores(metrics, ["rouge: F1, stemmed, rouge_l over lines (rougeLsum)"])


Metric = Callable[[Sequence[str], Sequence[str]], TextScores]
