"""Sentences of documents, none of them longer than a stated number of characters.

sentencex finds the sentences. It takes what stands between two quotation marks or brackets for a
part of one sentence, and with two inch marks that part may be a whole document. What comes out
longer than any sentence of ordinary text is therefore cut further.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

import sentencex

from data_pipeline.sources.documents import Document, SourceFormat

# Upper bound of what is stored as one sentence. Of 134,000 sentences of Wikipedia six are longer,
# most of them quotations of several sentences.
LONGEST_SENTENCE = 1000  # characters
_LONGEST_RUN = 250  # characters without a space, as in Chinese, or in base64

# Marks that end a clause; those of scripts without spaces need none after them.
CLAUSE_MARKS = (*",;:–—،؛", *"，；：、")

_OPENING_MARK = re.compile(r"(?<!\S)[\"“”„«»‹‘(\[{]|[「『《（【〔]")
_CLOSING_MARK = re.compile(r"[\"“”„«»‹›’)\]}」』》）】〕]")
# What a part may be, in the order in which it is tried.
_PART = re.compile(
    "|".join(
        (
            r"\S.{15,62}?[，；：、]",  # up to the first of these marks after 16 characters
            r"\S.{15,62}[,;:–—،؛](?=\s|$)",  # up to the last clause mark of 64 characters
            r"\S(?:.{0,62}\S)?(?=\s|$)",  # as many whole words as 64 characters hold
            rf"[^\s，；：、]{{1,{LONGEST_SENTENCE - 1}}}[，；：、]?|\S",  # a longer word
        )
    ),
    re.DOTALL,
)


class SentenceSplitter(NamedTuple):
    """Splitter of documents into sentences."""

    language: str  # ISO code, such as en
    formats: tuple[SourceFormat, ...]  # of the sources

    def split(self, document: Document, source: int) -> list[str]:
        """Return the sentences of a document of a source, none of them blank."""
        is_split = self.formats[source] is SourceFormat.SENTENCES
        return [
            sentence
            for paragraph in document
            for found in ([paragraph] if is_split else _segment(self.language, paragraph))
            for sentence in (cut_overlong(found, self.language) if _is_overlong(found) else [found])
        ]


def cut_overlong(text: str, language: str) -> Iterator[str]:
    """Yield the sentences inside the quotations and brackets of a text; cut those that are still
    too long after clause marks, else between words, into parts of at most 64 characters.

    Only a longer word, or clause without spaces, gives longer parts, of at most `LONGEST_SENTENCE`
    characters. Nothing but white space is left out.

    Example: of "The bolt is 5" long. It is new. The hole is 6" deep." the three sentences.
    """
    # As long as the text, so that boundaries are the same: opening marks become part of a word, and
    # closing ones a space after the full stop before them.
    unpaired = _CLOSING_MARK.sub(" ", _OPENING_MARK.sub("_", text))
    start = 0
    for found in sentencex.segment(language, unpaired):
        sentence = text[start : start + len(found)].strip()
        start += len(found)
        if _is_overlong(sentence):
            yield from _PART.findall(sentence)
        elif sentence:
            yield sentence


def _segment(language: str, paragraph: str) -> Iterator[str]:
    return filter(None, map(str.strip, sentencex.segment(language, paragraph)))


def _is_overlong(text: str) -> bool:
    return len(text) > LONGEST_SENTENCE or (
        len(text) > _LONGEST_RUN and max(map(len, text.split())) > _LONGEST_RUN
    )
