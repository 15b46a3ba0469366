"""Sentences: quotations do not swallow documents, and none is longer than it may be."""

import random
import string

import pytest
import sentencex

from data_pipeline.sources.documents import SourceFormat
from data_pipeline.sources.sentences import LONGEST_SENTENCE, SentenceSplitter, cut

ORDINARY = [f"Sentence number {number} is an ordinary one." for number in range(120)]
LETTERS = string.ascii_letters + string.digits + "+/"


def split(text: str, format: str = "text") -> list[list[str]]:
    return SentenceSplitter("en", (SourceFormat(format),)).split([text], 0)


def test_ordinary_text_is_segmented_as_sentencex_does():
    text = 'He said: "I came. I saw. I won." (It was so.) Dr. Smith\'s 5" bolt fits. Then he left. '
    expected = [sentence.strip() for sentence in sentencex.segment("en", text)]
    assert expected[0] == 'He said: "I came. I saw. I won."' and len(expected) == 3
    assert split(text) == [[sentence] for sentence in expected]
    assert split(text, "sentences") == [[text]]


@pytest.mark.parametrize(
    ("first", "last"),
    [
        ('The bolt is 5" long.', 'The hole is 6" deep.'),
        ("She said “no.", "And that was all.”"),
        ("They (all of them.", "Or most of them.)"),
        ("He wrote «Yes.", "And no.»"),
    ],
)
@pytest.mark.parametrize("format", ["jsonl", "sentences"])
def test_marks_far_apart_do_not_make_one_sentence(first, last, format):
    assert split(" ".join([first, *ORDINARY, last]), format) == [
        [sentence] for sentence in (first, *ORDINARY, last)
    ]


@pytest.mark.parametrize("space", ["\u00a0", "\u2009", " \u3000", "\u00a0.\u3000\u00a0", "\u2028"])
@pytest.mark.parametrize("language", ["en", "fr", "kk", "zh"])
def test_an_initial_before_any_space_and_a_full_stop(space, language):
    """sentencex panics where such a space has several bytes."""
    text = f'He had plan B{space}. She "said A{space}. Yes, {"and " * 300}no."'
    found = SentenceSplitter(language, (SourceFormat.TEXT,)).split([text], 0)
    parts = [part for sentence in found for part in sentence]
    assert "".join("".join(parts).split()) == "".join(text.split())
    assert parts[0].startswith(f"He had plan B{space}.")


def test_opening_marks_stay_with_the_sentence_after_them():
    text = " ".join(
        ["It was (so.", *ORDINARY[:40], '"She went," he said. (Never.) [Indeed.] That was it."']
    )
    ends = ['"She went," he said.', "(Never.)", "[Indeed.]", 'That was it."']
    assert [sentence for (sentence,) in split(text)][-4:] == ends


def test_worked_example_of_parts():
    text = "x " * 600 + ", not only in Rome, but also in the whole of Italy and Spain, yes"
    parts = ["not only in Rome,", "but also in the whole of Italy", "and Spain,", "yes"]
    assert cut(text)[-4:] == parts
    chinese = "".join(f"{'天地玄黄' * clause}，" for clause in range(1, 5)) * 20  # noqa: RUF001
    assert [len(part) for part in cut(chinese)[:3]] == [5 + 9, 13, 17]
    assert cut("x" * 250) == ["x" * 250]
    assert cut("x" * 251) == ["x" * 16] * 14 + ["x" * 27]


def many_texts() -> dict[str, str]:
    generator = random.Random(0)

    def word(low: int, high: int) -> str:
        return "".join(generator.choices(LETTERS, k=generator.randint(low, high)))

    def words(count: int) -> list[str]:
        return [word(1, 12).lower() for _ in range(count)]

    return {
        "no punctuation": " ".join(words(20_000)),
        "commas": ", ".join(words(3000)),
        "base64": word(5000, 5000),
        "address": f"See https://example.org/{word(3000, 3000)} and more. Good.",
        "code": "for (int i = 0; i < n; ++i) { a[i] = 'x; y'; b.push_back({i, 2}); } " * 60,
        "table": " | ".join(words(2000)),
        "brackets": "(" * 3000,
        "full stops": ". " * 2000,
        "commas alone": "，" * 3000,  # noqa: RUF001
        "Chinese": "天地玄黄宇宙洪荒" * 500,
        "tabs": "\t".join(words(2000)),
        "long words": " ".join(word(200, 249) for _ in range(20)),
        "noise": "".join(generator.choices(LETTERS + " \t，、,;:.!?()[]{}\"'“”«»「」", k=20_000)),  # noqa: RUF001
    }


@pytest.mark.parametrize("kind", many_texts())
@pytest.mark.parametrize("format", ["text", "sentences"])
def test_nothing_is_lost_and_nothing_is_long(kind, format):
    text = many_texts()[kind]
    parts = [part for sentence in split(text, format) for part in sentence]
    assert "".join("".join(parts).split()) == "".join(text.split())
    assert all(part and part == part.strip() for part in parts)
    assert max(map(len, parts)) <= (LONGEST_SENTENCE if kind == "noise" else 250)
    # Parts are short, but for words that are long.
    assert len(text) / len(parts) < (250 if kind in ("long words", "noise") else 40)
