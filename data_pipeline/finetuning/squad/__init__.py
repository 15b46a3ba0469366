"""SQuAD: questions read, laid out in windows, answered by spans, and scored."""

from data_pipeline.finetuning.squad.answers import (
    AnswerCandidate,
    QuestionPrediction,
    predict_answer,
    write_squad_predictions,
)
from data_pipeline.finetuning.squad.encoding import EncodedQuestion, encode_questions, join_windows
from data_pipeline.finetuning.squad.metrics import evaluate_v1, evaluate_v2, find_best_thresholds
from data_pipeline.finetuning.squad.reader import read_squad, split_by_article
from data_pipeline.finetuning.squad.spans import BeamOutputs, find_beam_spans, find_spans
from data_pipeline.finetuning.squad.windows import Window, make_windows

__all__ = [
    "AnswerCandidate",
    "BeamOutputs",
    "EncodedQuestion",
    "QuestionPrediction",
    "Window",
    "encode_questions",
    "evaluate_v1",
    "evaluate_v2",
    "find_beam_spans",
    "find_best_thresholds",
    "find_spans",
    "join_windows",
    "make_windows",
    "predict_answer",
    "read_squad",
    "split_by_article",
    "write_squad_predictions",
]
