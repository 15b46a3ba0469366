"""SQuAD: files, windows laid out by hand, spans compared with brute force, scores."""

import itertools
import json
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from data_pipeline import AlbertTokenizer
from data_pipeline.errors import InputError
from data_pipeline.finetuning.examples import Answer, QuestionExample
from data_pipeline.finetuning.squad import metrics as squad_metrics
from data_pipeline.finetuning.squad import split_answers
from data_pipeline.finetuning.squad.answers import (
    AnswerCandidate,
    QuestionPrediction,
    best_answers,
    null_scores,
    predict_answer,
    write_squad_predictions,
)
from data_pipeline.finetuning.squad.encoding import EncodedQuestion
from data_pipeline.finetuning.squad.reader import read_squad, split_by_article
from data_pipeline.finetuning.squad.spans import (
    BeamOutputs,
    TokenSpan,
    find_beam_null_score,
    find_beam_spans,
    find_null_score,
    find_spans,
)
from data_pipeline.finetuning.squad.windows import (
    find_max_context,
    locate_answer,
    make_windows,
    window_spans,
)

REAL_FILES = Path("../shared/data/squad")
NEEDS_REAL_FILES = pytest.mark.skipif(not REAL_FILES.is_dir(), reason=f"{REAL_FILES} is not there")
CONTEXT = "The castle was built in 1066 by William."


def question(name="q1", text="When?", answers=(("1066", 24),), **fields):
    return {
        "id": name,
        "question": text,
        "answers": [{"text": text, "answer_start": start} for text, start in answers],
    } | fields


def write(tmp_path, *questions, context=CONTEXT, title="Castle"):
    article = {"title": title, "paragraphs": [{"context": context, "qas": list(questions)}]}
    path = tmp_path / "dev.json"
    path.write_text(json.dumps({"version": "1.1", "data": [article]}, indent=1))
    return path


def test_both_versions_are_read(tmp_path):
    impossible = question("q2", "Why?", (), is_impossible=True, plausible_answers=[])
    examples = read_squad(write(tmp_path, question(), impossible))
    assert examples == [
        QuestionExample("q1", "When?", CONTEXT, (Answer("1066", 24),), False, "Castle"),
        QuestionExample("q2", "Why?", CONTEXT, (), True, "Castle"),
    ]


@pytest.mark.parametrize(
    ("questions", "message"),
    [
        (
            [question(answers=[("1067", 24)])],
            "dev.json:11: question q1: the answer '1067' is",
        ),
        ([question(answers=[("1066", 23)])], "is not at 23 in its context, which has ' 106"),
        ([question(answers=[("1066", -16)])], "answer_start must be a position, found -16"),
        ([question(answers=[("", 24)])], "question q1: text is empty"),
        ([question(), question()], "dev.json:11: question q1: its id is repeated"),
        ([question(), question("q2", " ")], "dev.json:21: question q2: question is empty"),
        ([question(answers=())], "question q1: it is answerable and has no answer"),
        ([question(is_impossible=True)], "question q1: it is impossible and has an answer"),
        ([question(is_impossible=1)], "is_impossible must be true or false, found 1"),
        ([question(5)], "article 'Castle': id must be a text, found 5"),
        ([{"id": "q1", "question": "When?"}], "question q1: answers must be a list of objects"),
        ([question(text="\ud800")], r"'\\ud800' is not Unicode text"),
        ([], "has no question"),
    ],
)
def test_errors_of_a_question_name_its_line(tmp_path, questions, message):
    with pytest.raises(InputError, match=message) as error:
        read_squad(write(tmp_path, *questions))
    assert "\n" not in str(error.value)
    assert "dev.json" in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"data":\n [}', "dev.json:2: this is not JSON"),
        ("[]", "dev.json:1: expected a JSON object"),
        ("{}", "dev.json: data must be a list of objects"),
        ('{"data": [{"paragraphs": [{"context": " ", "qas": []}]}]}', "'0': context is empty"),
        ("", "dev.json is empty"),
    ],
)
def test_files_of_another_format(tmp_path, content, message):
    (tmp_path / "dev.json").write_text(content)
    with pytest.raises(InputError, match=message):
        read_squad(tmp_path / "dev.json")


# Tokens of the context: "The castle", " was", " built", " in", " 1066", " by William."
OFFSETS = np.array([[0, 10], [11, 14], [15, 20], [21, 23], [24, 28], [29, 40]], np.int32)
EXAMPLE = QuestionExample("q1", "When?", CONTEXT, (Answer("1066", 24), Answer("in 1066", 21)))


def lay_out(example=EXAMPLE, question_ids=(7, 8), max_answer_length=1, **sizes):
    return make_windows(
        example,
        question_ids,
        range(11, 17),
        OFFSETS,
        cls_id=2,
        sep_id=3,
        max_answer_length=max_answer_length,
        **sizes,
    )


def test_a_context_that_fits_is_one_row():
    (window,) = lay_out()
    assert window.input_ids.tolist() == [2, 7, 8, 3, 11, 12, 13, 14, 15, 16, 3]
    assert window.token_type_ids.tolist() == [0] * 4 + [1] * 7
    assert window.p_mask.tolist() == [0, 1, 1, 1, 0, 0, 0, 0, 0, 0, 1]
    assert (window.context_position, window.first_token) == (4, 0)
    assert window.has_max_context.all()
    assert (window.start_position, window.end_position, window.is_impossible) == (8, 8, False)


def test_windows_slide_and_only_a_whole_answer_counts():
    windows = lay_out(
        EXAMPLE._replace(answers=(Answer("in 1066", 21),)), max_seq_length=9, doc_stride=2
    )
    assert [window.input_ids.tolist() for window in windows] == [
        [2, 7, 8, 3, 11, 12, 13, 14, 3],
        [2, 7, 8, 3, 13, 14, 15, 16, 3],
    ]
    assert [window.first_token for window in windows] == [0, 2]
    # Token 2 has two tokens to its left and one to its right in the first window.
    assert [window.has_max_context.tolist() for window in windows] == [
        [True, True, True, False],
        [False, True, True, True],
    ]
    assert [window[-3:] for window in windows] == [(0, 0, True), (5, 6, False)]


def test_an_impossible_question_and_a_long_one():
    windows = lay_out(
        EXAMPLE._replace(answers=(), is_impossible=True),
        question_ids=range(100, 200),
        max_query_length=3,
        max_seq_length=8,
        doc_stride=1,
    )
    assert windows[0].input_ids.tolist() == [2, 100, 101, 102, 3, 11, 12, 3]
    assert [window.first_token for window in windows] == [0, 1, 2, 3, 4]
    assert all(window.is_impossible and window.end_position == 0 for window in windows)


@pytest.mark.parametrize("max_answer_length", [1, 2, 3, 4])
def test_windows_overlap_by_the_longest_answer(max_answer_length):
    sizes = {"max_seq_length": 9, "doc_stride": 128, "max_answer_length": max_answer_length}
    for first in range(7 - max_answer_length):
        start, end = OFFSETS[first, 0], OFFSETS[first + max_answer_length - 1, 1]
        answer = Answer(CONTEXT[start:end], int(start))
        windows = lay_out(EXAMPLE._replace(answers=(answer,)), **sizes)
        assert any(not window.is_impossible for window in windows)
        assert windows[1].first_token == 5 - max_answer_length


def test_no_room_and_no_tokens():
    with pytest.raises(InputError, match="max_seq_length=5 and doc_stride=128 leave no room"):
        lay_out(max_seq_length=5)
    with pytest.raises(InputError, match="doc_stride=0 leave no room"):
        lay_out(doc_stride=0)
    with pytest.raises(InputError, match="question q1: its context has no tokens"):
        make_windows(EXAMPLE, [7], [], np.zeros((0, 2), np.int32), cls_id=2, sep_id=3)


@pytest.mark.parametrize(
    ("num_tokens", "capacity", "stride", "expected"),
    [
        (7, 4, 2, [(0, 4), (2, 6), (4, 7)]),
        (4, 4, 2, [(0, 4)]),
        (5, 4, 4, [(0, 4), (4, 5)]),
        (1, 4, 2, [(0, 1)]),
        (8, 4, 2, [(0, 4), (2, 6), (4, 8)]),
    ],
)
def test_spans_of_windows(num_tokens, capacity, stride, expected):
    assert window_spans(num_tokens, capacity, stride) == expected


@pytest.mark.parametrize("seed", range(5))
def test_max_context_by_brute_force(seed):
    random = np.random.default_rng(seed)
    num_tokens = int(random.integers(1, 60))
    capacity = int(random.integers(1, 20))
    spans = window_spans(num_tokens, capacity, int(random.integers(1, capacity + 1)))
    # Longer than the others, so that the length decides between equal contexts, and only there.
    spans += [(0, min(num_tokens, capacity + more)) for more in (3, 30)]
    for token, window in enumerate(find_max_context(spans, num_tokens)):
        scores = [
            min(token - first, end - 1 - token) + 0.01 * (end - first)
            if first <= token < end
            else -1
            for first, end in spans
        ]
        assert window == scores.index(max(scores))


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Answer("1066", 24), (4, 4)),
        (Answer("in 1066", 21), (3, 4)),
        (Answer("06", 25), (4, 4)),  # inside a token
        (Answer("castle was b", 4), (0, 2)),  # half of two tokens
        (Answer(" ", 28), (5, 5)),  # between two tokens: the one after it
        (Answer("!", 40), (5, 5)),  # after all of them
        (Answer(CONTEXT, 0), (0, 5)),
    ],
)
def test_every_answer_has_its_tokens(answer, expected):
    assert locate_answer(answer, OFFSETS) == expected


def test_tokens_that_share_a_character_all_belong_to_it():
    offsets = np.array([[0, 1], [1, 2], [1, 2], [1, 2], [2, 3]], np.int32)
    assert locate_answer(Answer("½", 1), offsets) == (1, 3)


def random_logits(windows, seed, padding=3):
    random = np.random.default_rng(seed)
    # Few values, so that there are ties, and the highest where no answer may be.
    logits = [
        [random.integers(0, 5, len(w.input_ids) + padding).astype(np.float32) for w in windows]
        for _ in range(2)
    ]
    for values, window in itertools.product((0, 1), range(len(windows))):
        logits[values][window][: windows[window].context_position] = 9
        logits[values][window][0] = 20 - 3 * window - values
        logits[values][window][-padding - 1 :] = 9
    return logits


def spans_by_brute_force(windows, starts, ends, max_answer_length):
    spans = []
    for window, start, end in zip(windows, starts, ends, strict=True):
        for i, j in itertools.product(range(len(window.has_max_context)), repeat=2):
            if window.has_max_context[i] and i <= j < i + max_answer_length:
                at = window.context_position
                score = float(start[at + i] + end[at + j])
                spans.append((window.first_token + i, window.first_token + j, score))
    return sorted(spans, key=lambda span: (-span[2], *span))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("n_best", "max_answer_length"), [(1, 1), (3, 2), (20, 30)])
def test_spans_against_brute_force(seed, n_best, max_answer_length):
    windows = lay_out(max_seq_length=9, doc_stride=1 + seed % 3)
    starts, ends = random_logits(windows, seed)
    spans = find_spans(windows, starts, ends, n_best=n_best, max_answer_length=max_answer_length)
    expected = spans_by_brute_force(windows, starts, ends, max_answer_length)
    assert [tuple(span) for span in spans] == expected[:n_best]
    null = min(float(s[0] + e[0]) for s, e in zip(starts, ends, strict=True))
    assert find_null_score(spans, starts, ends) == null - expected[0][2]


def search_beams(window, start, end, count):
    """Return the outputs of a conditional head whose ends do not depend on starts."""
    start, end = start[: len(window.input_ids)], end[: len(window.input_ids)]
    starts = np.argsort(-start, kind="stable")[:count]
    ends = np.argsort(-end, kind="stable")[:count]
    return BeamOutputs(
        start[starts], starts, np.tile(end[ends], (count, 1)), np.tile(ends, (count, 1)), 0.5
    )


@pytest.mark.parametrize("seed", range(6))
def test_beams_as_wide_as_the_row_find_the_same_spans(seed):
    windows = lay_out(max_seq_length=9, doc_stride=2)
    starts, ends = random_logits(windows, seed)
    outputs = [
        search_beams(*each, len(each[0].input_ids))
        for each in zip(windows, starts, ends, strict=True)
    ]
    expected = spans_by_brute_force(windows, starts, ends, 2)
    found = find_beam_spans(windows, outputs, n_best=7, max_answer_length=2)
    assert [tuple(span) for span in found] == expected[:7]


def test_narrow_beams_still_answer():
    windows = lay_out(max_seq_length=9, doc_stride=2)
    beams = BeamOutputs(
        start_log_probs=np.array([-0.1, -0.5, -0.7]),
        start_indices=np.array([0, 6, 7]),  # [CLS], token 2, token 3
        end_log_probs=np.array([[-0.1], [-0.2], [-0.3]]),
        end_indices=np.array([[0], [5], [5]]),  # before the starts
        answer_logit=0.25,
    )
    second = beams._replace(start_log_probs=np.array([-0.1, -0.6, -0.7]), answer_logit=-1.5)
    (span,) = find_beam_spans(windows, [beams, second])
    assert tuple(span) == (2, 2, -0.5)
    assert find_beam_null_score([beams, second]) == -1.5


def test_answers_are_distinct_texts_of_the_context():
    context = " Yes, yes, YES "
    example = QuestionExample("q", "Q?", context, (Answer("yes", 6),))
    offsets = np.array([[0, 5], [1, 4], [6, 9], [11, 14], [14, 15], [14, 14]], np.int32)
    spans = [(4, 4, 3.0), (0, 0, 2.0), (1, 1, 1.0), (2, 2, 1.0), (0, 0, 0.5), (2, 3, 0.0)]
    prediction = predict_answer(example, offsets, [TokenSpan(*span) for span in spans], 0.75)
    assert [candidate[:4] for candidate in prediction.candidates] == [
        ("Yes,", 1, 5, 2.0),
        ("Yes", 1, 4, 1.0),
        ("yes", 6, 9, 1.0),
        ("yes, YES", 6, 14, 0.0),
    ]
    for candidate in prediction.candidates:
        assert context[candidate.start : candidate.end] == candidate.text
    weights = np.exp([2.0, 1.0, 1.0, 0.0])
    probabilities = [candidate.probability for candidate in prediction.candidates]
    np.testing.assert_allclose(probabilities, weights / weights.sum())
    # If all spans are white space, the answer is still a word.
    assert predict_answer(example, offsets, [TokenSpan(5, 5, 1.0)]).candidates[0][:3] == (
        "Yes,",
        1,
        5,
    )


def test_files_of_predictions(tmp_path):
    spans = [TokenSpan(4, 4, 1.0), TokenSpan(3, 4, 1.0)]
    predictions = [predict_answer(EXAMPLE, OFFSETS, spans, 0.5)]
    answers, odds = best_answers(predictions), null_scores(predictions)
    assert (answers, odds) == ({"q1": "1066"}, {"q1": 0.5})
    assert squad_metrics.apply_threshold(answers, odds, 0.5) == answers
    answers = squad_metrics.apply_threshold(answers, odds, 0.0)
    write_squad_predictions(tmp_path, answers, predictions)
    read = {path.name: json.loads(path.read_text()) for path in tmp_path.iterdir()}
    assert read == {
        "predictions.json": {"q1": ""},
        "null_odds.json": {"q1": 0.5},
        "nbest_predictions.json": {
            "q1": [
                {"text": "1066", "start": 24, "end": 28, "score": 1.0, "probability": 0.5},
                {"text": "in 1066", "start": 21, "end": 28, "score": 1.0, "probability": 0.5},
            ]
        },
    }


@pytest.mark.parametrize(
    ("answer", "references", "first", "second"),
    [
        ("The 1066!", ["1066"], (1, 1), (1, 1)),
        ("in 1066", ["1066", "year 1066 AD"], (0, 2 / 3), (0, 2 / 3)),
        ("1066 1066", ["1066"], (0, 2 / 3), (0, 2 / 3)),
        ("U.S.", ["us", "the U S"], (1, 1), (1, 1)),
        ("x", ["1066"], (0, 0), (0, 0)),
        ("a", ["the"], (1, 0), (1, 1)),  # both are empty after normalization
        ("the", ["the", "1066"], (1, 0), (0, 0)),  # a reference is empty after normalization
        ("", ["1066"], (0, 0), (0, 0)),
    ],
)
def test_scores_by_hand(answer, references, first, second):
    example = QuestionExample("q", "Q?", "C", tuple(Answer(text, 0) for text in references))
    assert squad_metrics.score_v1(example, answer) == pytest.approx(first, abs=1e-12)
    assert squad_metrics.score_v2(example, answer) == pytest.approx(second, abs=1e-12)


def test_the_answer_to_an_impossible_question_is_empty():
    example = QuestionExample("q", "Q?", "C", (), is_impossible=True)
    assert squad_metrics.score_v2(example, "") == (1, 1)
    assert squad_metrics.score_v2(example, "x") == (0, 0)


def some_questions():
    examples = [
        QuestionExample(str(n), "Q?", "one two", (Answer("one two", 0),) * (n % 3 > 0), n % 3 == 0)
        for n in range(9)
    ]
    answers = {str(n): ("one two", "one", "x")[n // 3] for n in range(9)}
    return examples, answers


def test_metrics_of_whole_files():
    examples, answers = some_questions()
    assert squad_metrics.evaluate_v2(examples, answers) == pytest.approx(
        {
            "exact": 100 * 2 / 9,
            "f1": 100 * (2 + 2 * 2 / 3) / 9,
            "total": 9,
            "HasAns_exact": 100 * 2 / 6,
            "HasAns_f1": 100 * (2 + 2 * 2 / 3) / 6,
            "HasAns_total": 6,
            "NoAns_exact": 0,
            "NoAns_f1": 0,
            "NoAns_total": 3,
        },
        abs=1e-9,
    )
    possible = [example for example in examples if example.answers]
    metrics = squad_metrics.evaluate_v1(possible, answers)
    assert metrics == pytest.approx({"exact_match": 100 / 3, "f1": 500 / 9}, abs=1e-9)
    del answers["1"]  # a missing answer is wrong
    metrics = squad_metrics.evaluate_v1(possible, answers)
    assert metrics == pytest.approx({"exact_match": 100 / 6, "f1": 700 / 18}, abs=1e-9)
    assert "NoAns_f1" not in squad_metrics.evaluate_v2(possible, answers)


@pytest.mark.parametrize("seed", range(6))
def test_the_best_threshold_against_all_thresholds(seed):
    examples, answers = some_questions()
    thresholds = np.random.default_rng(seed).permutation(9) - (4.0 if seed % 2 else 0.0)
    nulls = {str(n): float(score) for n, score in enumerate(thresholds)}
    found = squad_metrics.find_best_thresholds(examples, answers, nulls)
    for (percent, threshold), key in zip(found, ("exact", "f1"), strict=True):

        def metric(at, key=key):
            emptied = squad_metrics.apply_threshold(answers, nulls, at)
            return squad_metrics.evaluate_v2(examples, emptied)[key]

        assert percent == pytest.approx(metric(threshold), abs=1e-9)
        assert percent == pytest.approx(max(map(metric, [-100.0, *thresholds.tolist()])), abs=1e-9)


def test_a_threshold_below_all_scores():
    examples, answers = some_questions()
    impossible = [example for example in examples if not example.answers]
    for lowest, threshold in ((0.5, 0.0), (-2.0, np.nextafter(-2.0, -np.inf))):
        nulls = {example.id: lowest + n for n, example in enumerate(impossible)}
        _, best = squad_metrics.find_best_thresholds(impossible, answers, nulls)
        assert best == (100, threshold)


class Search(NamedTuple):
    n_best: int = 20
    max_answer_length: int = 30
    null_threshold: float | None = None


def test_the_threshold_is_that_of_f1_on_the_half_that_is_not_reported(monkeypatch):
    """Articles a, b and d choose: right answers up to 2, one in part at 2.5, none at 3. The eight
    questions of c and e, all answered at 5, would choose 5."""
    nulls = {"a": [0.0, 2.0, 2.5], "b": [3.0], "d": [3.0], "c": [5.0] * 4, "e": [5.0] * 4}
    examples, found = [], {}
    for article, scores in nulls.items():
        for number, null in enumerate(scores):
            name, answer = f"{article}{number}", Answer("one two", 0)
            answers = () if null == 3.0 else (answer,)
            examples.append(QuestionExample(name, "Q?", "one two", answers, not answers, article))
            text = "one" if null == 2.5 else "one two"
            candidate = AnswerCandidate(text, 0, len(text), 1.0, 1.0)
            found[name] = QuestionPrediction(name, (candidate,), null)
    monkeypatch.setattr(split_answers, "predict_question", lambda _, one, *__: found[one.id])
    questions = [EncodedQuestion([], OFFSETS)] * len(examples)
    predicted = split_answers.predict_answers(Search(), examples, questions, [])
    assert predicted.threshold == 2.5
    metrics, without = split_answers.score_answers(Search(), examples, predicted)
    assert (metrics["total"], metrics["f1"], without["f1"]) == (8, 0, 0)
    assert (metrics["all_total"], metrics["null_threshold"]) == (13, 2.5)
    assert metrics["all_f1"] == pytest.approx(100 * (4 + 2 / 3) / 13)
    assert metrics["best_f1"] == pytest.approx(100 * (10 + 2 / 3) / 13)
    given = Search(null_threshold=5.0)
    predicted = split_answers.predict_answers(given, examples, questions, [])
    metrics, without = split_answers.score_answers(given, examples, predicted)
    assert (metrics["total"], metrics["f1"]) == (13, metrics["best_f1"])
    assert without["f1"] == pytest.approx(100 * 2 / 13)


def test_halves_share_no_article():
    examples = [EXAMPLE._replace(id=f"{a}{n}", article=a) for a in "abcde" for n in range(3)]
    first, second = split_by_article(examples)
    articles = [{example.article for example in half} for half in (first, second)]
    assert articles == [set("abd"), set("ce")]  # in the order of their hashes: d c b e a
    assert len(first) + len(second) == 15
    assert split_by_article(examples[::-1])[0][::-1] == first
    with pytest.raises(InputError, match="a single article cannot be split"):
        split_by_article(examples[:3])


@pytest.mark.slow
@NEEDS_REAL_FILES
@pytest.mark.parametrize(
    ("system", "exact_match", "f1"),
    [
        ("bert_ensemble", 86.206244087, 92.195579784),
        ("matchlstm_ensemble", 67.634815516, 76.755561850),
        ("logreg", 40.141911069, 50.981536473),
    ],
)
def test_published_predictions_have_their_published_scores(system, exact_match, f1):
    examples = read_squad(REAL_FILES / "dev-v1.1.json")
    path = REAL_FILES / "published_predictions" / f"v1.1_{system}.json"
    metrics = squad_metrics.evaluate_v1(examples, json.loads(path.read_text()))
    assert metrics == pytest.approx({"exact_match": exact_match, "f1": f1}, abs=1e-9)


@pytest.mark.slow
@NEEDS_REAL_FILES
@pytest.mark.parametrize(
    ("name", "questions", "impossible", "articles"),
    [
        ("dev-v1.1.json", 10570, 0, 48),
        ("train_du44-v1.1.json", 11877, 0, 44),
        ("dev-v2.0-sample.json", 2382, 1246, 7),
    ],
)
def test_all_of_the_real_files(name, questions, impossible, articles):
    examples = read_squad(REAL_FILES / name)
    assert len(examples) == questions
    assert sum(example.is_impossible for example in examples) == impossible
    assert len({example.article for example in examples}) == articles


@pytest.mark.slow
@NEEDS_REAL_FILES
@pytest.mark.parametrize("name", ["dev-v1.1.json", "train_du44-v1.1.json", "dev-v2.0-sample.json"])
def test_no_answer_is_lost_between_characters_and_tokens(name):
    """A model that predicts the tokens of every answer has all answers, up to part of a word."""
    tokenizer = AlbertTokenizer.from_pretrained(REAL_FILES.parent / "albert_spm/30k-clean.model")
    examples = [example for example in read_squad(REAL_FILES / name) if example.answers][::4]
    cut = 0
    for example in examples:
        question_ids, _ = tokenizer.encode_with_offsets(example.question)
        context_ids, offsets = tokenizer.encode_with_offsets(example.context)
        windows = make_windows(
            example,
            question_ids,
            context_ids,
            offsets,
            cls_id=tokenizer.cls_id,
            sep_id=tokenizer.sep_id,
        )
        assert any(not window.is_impossible for window in windows)
        logits = [[np.zeros(len(window.input_ids)) for window in windows] for _ in range(2)]
        for number, window in enumerate(windows):
            logits[0][number][window.start_position] += not window.is_impossible
            logits[1][number][window.end_position] += not window.is_impossible
        best = predict_answer(example, offsets, find_spans(windows, *logits)).candidates[0]
        assert example.context[best.start : best.end] == best.text
        answer = example.answers[0]
        first, last = locate_answer(answer, offsets)
        if last - first >= 30:
            continue  # longer than max_answer_length
        assert answer.text.strip() in best.text
        only = example._replace(answers=(answer,))
        if not squad_metrics.score_v1(only, best.text).exact:
            # Tokens do not end inside a word or a number, where a few answers do.
            assert cuts_word(example.context, answer), (answer, best)
            cut += 1
    assert cut < len(examples) / 50


def cuts_word(context, answer):
    ends = (answer.start, answer.start + len(answer.text))
    return any(re.match(r"\w\w|\d,\d", context[max(end - 1, 0) : end + 2]) for end in ends if end)
