"""SentencePiece vocabularies, as used by the released English models: encoding and training."""

import io
import string
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import sentencepiece

from data_pipeline.config import WordStartRule
from data_pipeline.errors import InputError
from data_pipeline.tokenizers.added_tokens import AddedToken
from data_pipeline.tokenizers.alignment import AlignedText, text_of
from data_pipeline.tokenizers.normalization import normalize, normalize_aligned
from data_pipeline.tokenizers.sentencepiece_model import adjust_scores, parse_model
from data_pipeline.tokenizers.tokenizer import Tokenizer

WORD_MARK = "▁"

# The first thirteen pieces of the released vocabularies.
PAD, UNKNOWN, CLS, SEP, MASK = "<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"
USER_DEFINED = ("(", ")", '"', "-", ".", "–", "£", "€")  # noqa: RUF001
FIRST_PIECES = (PAD, UNKNOWN, CLS, SEP, MASK, *USER_DEFINED)

_LETTERS = frozenset(string.ascii_letters)
# The punctuation listed by the released word-start rule: ASCII punctuation except ' < = >.
_LISTED_PUNCTUATION = frozenset(string.punctuation) - frozenset("'<=>")


class SentencePieceTokenizer(Tokenizer):
    """A unigram SentencePiece model, with ALBERT's rule for numbers before commas.

    Pieces that end in a digit and a comma (`▁2011,`) are never chosen. The comma is a separate
    piece, and the number before it is segmented as if such pieces did not exist.

    Attributes:
        model: the serialized model.
    """

    KIND = "sentencepiece"
    VOCABULARY_FILE = "tokenizer.model"

    def __init__(
        self,
        model: bytes,
        *,
        lower_case: bool = True,
        keep_accents: bool = False,
        added_tokens: Sequence[AddedToken] = (),
    ) -> None:
        """Load a serialized model.

        Raises:
            InputError: it is not a unigram model, lacks a special token, or has pieces that span
                white space; or an added token can never be found in a text.
        """
        super().__init__(lower_case=lower_case, keep_accents=keep_accents)
        self.model = model
        self._processor = sentencepiece.SentencePieceProcessor()
        adjusted = parse_model(model)
        adjust_scores(adjusted)
        try:
            self._processor.LoadFromSerializedProto(adjusted.SerializeToString())
        except RuntimeError:
            raise InputError("it is not a SentencePiece model") from None
        size = self._processor.get_piece_size()
        self.tokens = tuple(self._processor.id_to_piece(list(range(size))))
        ids = {piece: id for id, piece in enumerate(self.tokens)}
        missing = [piece for piece in (CLS, SEP, MASK) if piece not in ids]
        if self._processor.pad_id() != 0:
            missing.insert(0, f"{PAD} (as id 0)")
        if missing:
            raise InputError(f"it lacks the special tokens {', '.join(missing)}")
        if any(WORD_MARK in piece[1:] for piece in self.tokens):
            raise InputError("it has pieces that span white space")
        self.pad_id, self.unk_id = 0, self._processor.unk_id()
        self.cls_id, self.sep_id, self.mask_id = (ids[piece] for piece in (CLS, SEP, MASK))
        self._add_tokens(added_tokens)

    @classmethod
    def from_bytes(
        cls,
        vocabulary: bytes,
        *,
        lower_case: bool = True,
        keep_accents: bool = False,
        added_tokens: Sequence[AddedToken] = (),
    ) -> "SentencePieceTokenizer":
        """Load a serialized model."""
        return cls(
            vocabulary,
            lower_case=lower_case,
            keep_accents=keep_accents,
            added_tokens=added_tokens,
        )

    def _decode(self, ids: list[int]) -> str:
        return self._processor.decode([int(id) for id in ids])

    def _surface_form(self, id: int) -> tuple[str, bool]:
        piece = self.tokens[id]
        return piece.removeprefix(WORD_MARK), piece.startswith(WORD_MARK)

    def _encode_words(self, words: list[str]) -> list[list[int]]:
        normalized = [
            normalize(word, lower_case=self.lower_case, keep_accents=self.keep_accents)
            for word in words
        ]
        return self._processor.encode(normalized, num_threads=1)

    def _encode_word_with_offsets(self, word: str) -> list[tuple[int, int, int]]:
        options = {"lower_case": self.lower_case, "keep_accents": self.keep_accents}
        aligned = normalize_aligned(word, **options)
        text = text_of(aligned)
        ids = self._processor.encode(text)
        # Unknown pieces are the characters themselves, so the pieces together form `normalized`.
        pieces = self._processor.encode(text, out_type=str)
        normalized, places = self._processor.normalize(text, with_offsets=True)
        if sum(map(len, pieces)) != len(normalized):
            raise InputError("a vocabulary with pieces of single bytes has no character offsets")
        rows: list[tuple[int, int, int]] = []
        start = 0
        for id, piece in zip(ids, pieces, strict=True):
            end = start + len(piece)
            if normalized[start] == WORD_MARK and len(piece) > 1:
                start += 1
            first = min(places[start], len(aligned) - 1)
            last = max(first, places[end] - 1)
            if normalized[start:end] == WORD_MARK:
                begin = stop = aligned[min(places[end], len(aligned) - 1)][1]
            else:
                begin, stop = aligned[first][1], aligned[last][2]
            rows.append((id, begin, stop))
            start = end
        return rows

    def _normalize_word(self, word: str) -> AlignedText:
        options = {"lower_case": self.lower_case, "keep_accents": self.keep_accents}
        aligned = normalize_aligned(word, **options)
        normalized, places = self._processor.normalize(text_of(aligned), with_offsets=True)
        first = len(normalized) - len(normalized.lstrip(WORD_MARK))
        result = []
        for index in range(first, len(normalized)):
            start, last = places[index], max(places[index], places[index + 1] - 1)
            char = normalized[index].replace(WORD_MARK, " ")
            result.append((char, aligned[start][1], aligned[last][2]))
        return result

    def _starts_word(self, token: str, rule: WordStartRule) -> bool:
        if rule is WordStartRule.SPACE:
            is_mark = len(token) == 1 and unicodedata.category(token)[0] in "PS"
            return token.startswith(WORD_MARK) or is_mark
        return (
            token.startswith((WORD_MARK, "<"))
            or token in _LISTED_PUNCTUATION
            or not _LETTERS.union(_LISTED_PUNCTUATION).issuperset(token)
        )

    def vocabulary_bytes(self) -> bytes:
        return self.model


def train_sentencepiece(
    sentences: Path,
    *,
    vocab_size: int,
    seed: int = 0,
    max_sentences: int = 10_000_000,
    lower_case: bool = True,
    keep_accents: bool = False,
) -> SentencePieceTokenizer:
    """Train a vocabulary with the settings of the released models.

    Args:
        sentences: a text file of normalized sentences, one per line.
        vocab_size: number of pieces, including special tokens.
        seed: the seed for sampling `max_sentences` if there are more.
        max_sentences: maximum number of sentences that the trainer holds in memory.
        lower_case: how the sentences were normalized.
        keep_accents: how the sentences were normalized.

    Raises:
        InputError: the text has too few different words for this number of pieces.
    """
    model = io.BytesIO()
    sentencepiece.set_random_generator_seed(seed)
    try:
        with sentences.open(encoding="utf-8") as lines:
            sentencepiece.SentencePieceTrainer.train(
                # Not by file name, since the model would record it.
                sentence_iterator=(line.removesuffix("\n") for line in lines),
                model_writer=model,
                model_type="unigram",
                vocab_size=vocab_size,
                character_coverage=0.99995,
                pad_id=0,
                unk_id=1,
                bos_id=-1,
                eos_id=-1,
                pad_piece=PAD,
                unk_piece=UNKNOWN,
                control_symbols=[CLS, SEP, MASK],
                user_defined_symbols=list(USER_DEFINED),
                input_sentence_size=max_sentences,
                shuffle_input_sentence=True,
                # The order of summation depends on the number of threads, so it is fixed.
                num_threads=16,
                minloglevel=2,
            )
    except RuntimeError as error:
        raise InputError(
            f"--vocab_size={vocab_size} cannot be trained on this text: {_last_sentence(error)}"
        ) from None
    tokenizer = SentencePieceTokenizer(
        model.getvalue(), lower_case=lower_case, keep_accents=keep_accents
    )
    if tokenizer.tokens[: len(FIRST_PIECES)] != FIRST_PIECES:
        raise RuntimeError(f"the trained vocabulary begins with {tokenizer.tokens[:13]}")
    return tokenizer


def _last_sentence(error: RuntimeError) -> str:
    """Return the trainer's message without the location in its source code."""
    return str(error).rsplit("] ", 1)[-1].strip()
