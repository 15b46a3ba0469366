"""Byte-level BPE vocabularies, as used by GPT-2, based on the `tokenizers` library."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from albert_jax.input_files import read_json_object, read_text, require_fields, shorten
from data_pipeline.errors import InputError
from data_pipeline.tokenizers.targets.export import describe_byte_level
from data_pipeline.tokenizers.targets.target_tokenizer import SETTINGS_FILE, TargetTokenizer

TOKENS_FILE, MERGES_FILE = "vocab.json", "merges.txt"

# GPT-2 keeps bytes that are printable in Latin-1 and maps the others to U+0100 and beyond.
_PRINTABLE = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))
BYTE_CHARACTERS = frozenset(map(chr, (*_PRINTABLE, *range(0x100, 0x200 - len(_PRINTABLE)))))


class ByteLevelTargets(TargetTokenizer):
    """Bytes of words, merged pair by pair; every text can be encoded and decodes to itself.

    Attributes:
        tokens: token -> id.
        merges: pairs of tokens, in the order of merging.
        bos_token, eos_token, pad_token: the special tokens, which encoding a text never produces.
    """

    KIND = "byte_level"

    def __init__(
        self,
        tokens: Mapping[str, int],
        merges: Sequence[tuple[str, str]],
        *,
        bos_token: str,
        eos_token: str,
        pad_token: str,
    ) -> None:
        """Initialize from a vocabulary whose tokens include the special ones.

        Raises:
            InputError: it is not a byte-level BPE, a special token is missing or is also an
                ordinary one, padding also begins or ends a target, or the package `tokenizers` is
                not installed.
        """
        _check_tokens(tokens)
        self.tokens = dict(sorted(tokens.items(), key=lambda item: item[1]))
        self.merges = tuple(merges)
        made = _check_merges(self.tokens, self.merges)
        for token in (bos_token, eos_token, pad_token):
            if token not in tokens:
                raise InputError(f"it has no token {token!r}")
            if token in made:
                raise InputError(
                    f"{token!r} is a token of ordinary text; a token that begins, ends or pads "
                    "targets must be another one, such as <pad>, which is appended"
                )
        self.bos_token, self.eos_token, self.pad_token = bos_token, eos_token, pad_token
        self.vocab_size = len(tokens)
        self.bos_id, self.eos_id = tokens[bos_token], tokens[eos_token]
        self.pad_id = tokens[pad_token]
        self._require_separate_padding()
        self._bpe = _make_bpe(self.tokens, self.merges)

    @classmethod
    def from_files(cls, directory: Path, settings: Mapping[str, Any]) -> "ByteLevelTargets":
        names = ("bos_token", "eos_token", "pad_token")
        place = str(directory / SETTINGS_FILE)
        require_fields(settings, dict.fromkeys(names, str), place, error=InputError)
        tokens = read_json_object(directory / TOKENS_FILE, error=InputError)
        merges = read_merges(directory / MERGES_FILE)
        return cls(tokens, merges, **{name: settings[name] for name in names})

    @property
    def settings(self) -> dict[str, Any]:
        names = ("bos_token", "eos_token", "pad_token")
        return super().settings | {name: getattr(self, name) for name in names}

    def vocabulary_files(self) -> dict[str, bytes]:
        merges = "".join(f"{left} {right}\n" for left, right in self.merges)
        return {
            TOKENS_FILE: json.dumps(self.tokens, ensure_ascii=False).encode(),
            MERGES_FILE: f"#version: 0.2\n{merges}".encode(),
        }

    def _encode(self, lines: list[str]) -> list[list[int]]:
        return [encoding.ids for encoding in self._bpe.encode_batch_fast(lines)]

    def _decode(self, ids: list[int]) -> str:
        text: str = self._bpe.decode(ids, skip_special_tokens=False)
        return text

    def _describe_huggingface(self) -> tuple[dict[str, Any], dict[str, Any]]:
        special = (self.bos_token, self.eos_token, self.pad_token)
        return describe_byte_level(self.tokens, self.merges, *special)


def read_merges(path: Path) -> list[tuple[str, str]]:
    """Read a merges.txt: two tokens per line, after a line with its version.

    Raises:
        InputError: the file does not exist, or a line does not have two tokens.
    """
    lines = read_text(path, error=InputError).split("\n")
    merges = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or (number == 1 and line.startswith("#version")):
            continue
        pair = line.removesuffix("\r").split(" ")
        if len(pair) != 2:
            raise InputError(f"{path}:{number}: expected two tokens, got {shorten(line)}")
        merges.append((pair[0], pair[1]))
    return merges


def _check_tokens(tokens: Mapping[str, int]) -> None:
    ids = tokens.values()
    if not all(type(id) is int for id in ids) or set(ids) != set(range(len(tokens))):
        raise InputError(f"its {len(tokens)} tokens have other ids than 0 to {len(tokens) - 1}")
    if missing := BYTE_CHARACTERS - tokens.keys():
        raise InputError(
            f"it lacks {len(missing)} of the 256 bytes: it is no byte-level vocabulary such as "
            "that of GPT-2"
        )


def _check_merges(tokens: Mapping[str, int], merges: Sequence[tuple[str, str]]) -> set[str]:
    """Return the tokens that encoding a text can produce."""
    made = set(BYTE_CHARACTERS)
    for number, (left, right) in enumerate(merges, 1):
        for token in (left, right, left + right):
            if token not in tokens or not BYTE_CHARACTERS.issuperset(token):
                raise InputError(
                    f"merge {number} is of {shorten(left)} and {shorten(right)}, and {token!r} is "
                    "no token of bytes"
                )
        made.add(left + right)
    return made


def _make_bpe(tokens: dict[str, int], merges: Sequence[tuple[str, str]]) -> Any:
    try:
        import tokenizers
    except ImportError as error:
        raise InputError(
            "byte-level vocabularies of targets need the package tokenizers: "
            "pip install 'albert-jax[generation]'"
        ) from error
    bpe = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=tokens, merges=list(merges)))
    bpe.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = tokenizers.decoders.ByteLevel()
    return bpe
