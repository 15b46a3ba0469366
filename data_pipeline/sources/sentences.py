"""Sentences of documents, none of them longer than a given number of characters.

sentencex finds the sentences. It treats everything between two quotation marks or brackets as part
of one sentence; with two inch marks, that part may be a whole document. Therefore, a result longer
than any sentence of ordinary text is cut further.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple
from unicodedata import category

import sentencex

from data_pipeline.sources.documents import Document, SourceFormat

# Maximum length of what is stored as one sentence. Of 134,000 sentences of Wikipedia, six are
# longer, most of them quotations of several sentences.
LONGEST_SENTENCE = 1000  # characters
_LONGEST_RUN = 250  # characters without a space, as in Chinese or base64

# Marks that end a clause: those followed by a space, and those of scripts without spaces.
_SPACED_MARKS, _UNSPACED_MARKS = ",;:–—،؛", "，；：、"  # noqa: RUF001
CLAUSE_MARKS = (*_SPACED_MARKS, *_UNSPACED_MARKS)


def _characters(*categories: str) -> str:
    """Return a regular expression for quotation marks and brackets of some Unicode categories."""
    found = (chr(code) for code in range(1 << 16) if category(chr(code)) in categories)
    return f'[{re.escape("".join(found))}"]'


# A mark that can open or close, such as a straight quote, opens if a word begins with it.
_OPENING_MARK = re.compile(
    rf"(?<!\S){_characters('Ps', 'Pi', 'Pe', 'Pf')}|(?!\"){_characters('Ps', 'Pi')}"
)
_CLOSING_MARK = re.compile(_characters("Pe", "Pf"))

# sentencex ends the process at an initial whose full stop follows a space of several bytes, as the
# no-break space is: it steps back by one byte.
_INITIAL = re.compile(r"\b\w[\s.]*\s\.")
_WIDE_SPACE = re.compile(r"[^\S\0-\x7f]")

# What a part may be, in the order in which it is tried.
_PART = re.compile(
    "|".join(
        (
            # Up to the first unspaced mark after 8 characters; up to the last spaced mark within 32
            # characters; or as many whole words as fit into 32 characters.
            rf"\S.{{7,30}}?[{_UNSPACED_MARKS}]",
            rf"\S.{{7,30}}[{_SPACED_MARKS}](?=\s|$)",
            r"\S(?:.{0,30}\S)?(?=\s|$)",
            # A longer word, or a few characters of a run that is too long for a word.
            rf"(?<!\S)\S{{33,{_LONGEST_RUN}}}(?=\s|$)",
            rf"[^\s{_UNSPACED_MARKS}]{{1,16}}[{_UNSPACED_MARKS}]?|\S",
        )
    ),
    re.DOTALL,
)


class SentenceSplitter(NamedTuple):
    """Splits documents into sentences."""

    language: str  # ISO code, such as en
    formats: tuple[SourceFormat, ...]  # the formats of the sources

    def split(self, document: Document, source: int) -> list[list[str]]:
        """Return the sentences of a document, each as a list of its parts.

        A sentence has a single part, itself, unless it is overlong. No part is blank.
        """
        is_split = self.formats[source] is SourceFormat.SENTENCES
        return [
            [sentence] if len(sentence) <= _LONGEST_RUN else cut(sentence)
            for paragraph in document
            for found in ([paragraph] if is_split else _segment(paragraph, self.language))
            for sentence in (
                segment_inside(found, self.language)
                if len(found) > _LONGEST_RUN and is_overlong(found)
                else [found]
            )
        ]


def segment_inside(text: str, language: str) -> Iterator[str]:
    """Yield the sentences of a text, including those inside its quotations and brackets.

    Example: "The bolt is 5" long. It is new. The hole is 6" deep." gives its three sentences.
    """
    # Opening marks become part of a word, and closing ones a space after the full stop before them.
    return _segment(text, language, _CLOSING_MARK.sub(" ", _OPENING_MARK.sub("_", text)))


def cut(sentence: str) -> list[str]:
    """Return the parts of an overlong sentence, or any other sentence as its only part.

    The sentence is cut after clause marks, else between words, into parts of at most 32 characters.
    A longer word is a part of its own; text without a space in 250 characters is cut anywhere. Only
    white space is dropped. Parts are this short because a pair ends with a whole part, and
    whatever exceeds the row is truncated.

    Example: "..., not only in Rome, but also in the whole of Italy and Spain, ..." has the parts
    "not only in Rome,", "but also in the whole of Italy", "and Spain,".
    """
    return _PART.findall(sentence) if is_overlong(sentence) else [sentence]


def is_overlong(sentence: str) -> bool:
    """Return True if a sentence is longer than the sentences of ordinary text."""
    return len(sentence) > LONGEST_SENTENCE or (
        len(sentence) > _LONGEST_RUN and max(map(len, sentence.split())) > _LONGEST_RUN
    )


def _segment(text: str, language: str, seen: str | None = None) -> Iterator[str]:
    """Yield the sentences of a text, cut where sentencex cuts `seen`, a text of the same length."""
    seen = _INITIAL.sub(lambda initial: _WIDE_SPACE.sub(" ", initial[0]), seen or text)
    start = 0
    for found in sentencex.segment(language, seen):
        end = start + len(found)
        if sentence := text[start:end].strip():
            yield sentence
        start = end
