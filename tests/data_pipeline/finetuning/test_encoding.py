"""Encoded examples: special tokens, truncation, labels, tags at first tokens."""

import numpy as np
import pytest

from data_pipeline.finetuning.encoded_examples import EncodedExamples
from data_pipeline.finetuning.encoding import (
    encode_choices,
    encode_texts,
    encode_words,
)
from data_pipeline.finetuning.examples import (
    Answer,
    ChoiceExample,
    QuestionExample,
    TaggedExample,
    TextExample,
)
from data_pipeline.finetuning.squad.encoding import encode_questions, join_windows
from data_pipeline.planning.pairs import count_truncated
from data_pipeline.tokenizers.albert import AlbertTokenizer
from data_pipeline.tokenizers.wordpiece import WordPieceTokenizer

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = ("a", "b", "c", "d", "##e", "f", ".")  # 5 to 11


@pytest.fixture(scope="module")
def tokenizer() -> AlbertTokenizer:
    return AlbertTokenizer(WordPieceTokenizer([*SPECIAL, *WORDS]))


def sequences(examples: EncodedExamples, field: str) -> list[list[int]]:
    parts = np.split(examples.sequences[field], examples.starts[1:-1])
    return [part.tolist() for part in parts]


def test_pairs_are_truncated_token_by_token() -> None:
    generator = np.random.default_rng(0)
    first, second, budget = generator.integers(0, 12, size=(3, 500))
    budget = budget + 1
    lengths = np.stack([first, second], axis=1)
    kept = (lengths - count_truncated(lengths, budget)).T
    for a, b, limit, kept_a, kept_b in zip(first, second, budget, *kept, strict=True):
        while a + b > limit:
            if a > b:
                a -= 1
            else:
                b -= 1
        assert (a, b) == (kept_a, kept_b)


def test_texts_and_pairs(tokenizer: AlbertTokenizer) -> None:
    examples = [
        TextExample("0", "a b", None, 1),
        TextExample("1", "a b c", "d", 0),
        TextExample("2", "a b c d", "ae f", None),
    ]
    encoded = encode_texts(tokenizer, examples, max_seq_length=7, regression=False)
    assert sequences(encoded, "input_ids") == [
        [2, 5, 6, 3],
        [2, 5, 6, 7, 3, 8, 3],
        [2, 5, 6, 3, 5, 9, 3],  # 4 and 3 tokens where 4 fit
    ]
    assert sequences(encoded, "token_type_ids") == [
        [0, 0, 0, 0],
        [0, 0, 0, 0, 0, 1, 1],
        [0, 0, 0, 0, 1, 1, 1],
    ]
    assert encoded.values["labels"].tolist() == [1, 0, 0]
    assert encoded.values["labels"].dtype == np.int32
    scores = encode_texts(
        tokenizer, [TextExample("0", "a", None, 2.5)], max_seq_length=7, regression=True
    )
    assert scores.values["labels"].tolist() == [2.5]
    assert scores.values["labels"].dtype == np.float32


def test_choices(tokenizer: AlbertTokenizer) -> None:
    example = ChoiceExample("x", "a b c", "d _ f", ("a", "b", "c", "d"), 2, "high")
    encoded = encode_choices(tokenizer, [example], max_seq_length=8, max_qa_length=2)
    assert sequences(encoded, "input_ids") == [
        [2, 5, 6, 7, 3, option, 10, 3] for option in (5, 6, 7, 8)
    ]
    assert encoded.choices == 4
    assert encoded.values["labels"].tolist() == [2]


def test_words_are_tagged_at_their_first_token(tokenizer: AlbertTokenizer) -> None:
    examples = [
        TaggedExample(("ae", "b", "f"), ("X", "O", "X")),
        TaggedExample(("c",), None),
    ]
    encoded, rows = encode_words(tokenizer, examples, ("O", "X"), max_seq_length=5)
    assert sequences(encoded, "input_ids") == [[2, 5, 9, 6, 3], [2, 10, 3], [2, 7, 3]]
    assert sequences(encoded, "label_mask") == [[0, 1, 0, 1, 0], [0, 1, 0], [0, 1, 0]]
    assert sequences(encoded, "labels") == [[0, 1, 0, 0, 0], [0, 1, 0], [0, 0, 0]]
    assert [len(sentence) for sentence in rows] == [2, 1]
    encoded, _ = encode_words(tokenizer, examples[:1], ("O", "X"), max_seq_length=4)
    assert sequences(encoded, "input_ids") == [[2, 5, 9, 3], [2, 6, 10, 3]]
    assert sequences(encoded, "labels") == [[0, 1, 0, 0], [0, 0, 1, 0]]


def test_questions(tokenizer: AlbertTokenizer) -> None:
    context = "a b. c ae d"
    examples = [
        QuestionExample("1", "f", context, (Answer("ae", 7),)),
        QuestionExample("2", "d", context, (), True),
    ]
    questions = encode_questions(
        tokenizer,
        examples,
        max_seq_length=8,
        doc_stride=2,
        max_query_length=3,
        max_answer_length=2,
    )
    encoded = join_windows(questions)
    assert [len(question.windows) for question in questions] == [3, 3]
    assert sequences(encoded, "input_ids")[:3] == [
        [2, 10, 3, 5, 6, 11, 7, 3],
        [2, 10, 3, 11, 7, 5, 9, 3],
        [2, 10, 3, 5, 9, 8, 3],
    ]
    assert sequences(encoded, "p_mask")[2] == [0, 1, 1, 0, 0, 0, 1]
    assert encoded.values["start_positions"].tolist() == [0, 5, 3, 0, 0, 0]
    assert encoded.values["end_positions"].tolist() == [0, 6, 4, 0, 0, 0]
    assert encoded.values["is_impossible"].tolist() == [1, 0, 0, 1, 1, 1]
    assert questions[0].context_offsets[5].tolist() == [8, 9]
