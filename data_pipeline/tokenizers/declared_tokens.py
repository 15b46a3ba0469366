"""Added tokens that the files of a pretrained model declare, in any place where transformers looks.

These places are `added_tokens.json`; `special_tokens_map.json` and `tokenizer_config.json`, with
named special tokens, `additional_special_tokens` and `extra_special_tokens`; `added_tokens_decoder`
in the latter; and `added_tokens` in `tokenizer.json`.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from data_pipeline.errors import InputError
from data_pipeline.tokenizers.added_tokens import AddedToken
from data_pipeline.tokenizers.export import TOKENIZER_CONFIG_FILE, TOKENIZER_FILE
from data_pipeline.tokenizers.loading import read_tokenizer_json
from data_pipeline.tokenizers.sentencepiece import USER_DEFINED, SentencePieceTokenizer
from data_pipeline.tokenizers.tokenizer import Tokenizer

ADDED_TOKENS_FILE = "added_tokens.json"
SPECIAL_TOKENS_FILE = "special_tokens_map.json"
DECLARING_FILES = (
    *(TOKENIZER_CONFIG_FILE, TOKENIZER_FILE),
    *(SPECIAL_TOKENS_FILE, ADDED_TOKENS_FILE),
)

_LISTS = ("extra_special_tokens", "additional_special_tokens")
_NAMED = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")


class _Declaration(NamedTuple):
    """A token as one file declares it."""

    token: AddedToken
    id: int | None  # None: the vocabulary's id of the token, or the next free one
    file: Path


def with_declared_tokens(tokenizer: Tokenizer, files: Mapping[str, Path]) -> Tokenizer:
    """Return the tokenizer with the added tokens that files declare.

    This excludes the five special tokens, and the eight symbols of the released vocabulary that
    only some versions of transformers declare. The vocabulary itself handles these.

    Args:
        tokenizer: the tokenizer of the vocabulary alone.
        files: those of `DECLARING_FILES` that exist, keyed by these names.

    Raises:
        InputError: a file is malformed, two files disagree, a token has an impossible id, or it is
            of a kind that is not supported.
    """
    merged: dict[str, _Declaration] = {}
    for declared in _declarations(files, tokenizer):
        known = merged.setdefault(declared.token.content, declared)
        if known.id is None:
            merged[declared.token.content] = known._replace(id=declared.id)
        elif declared.id not in (None, known.id):
            raise InputError(
                f"tokenizer {declared.file}: {declared.token.content!r} is token {declared.id}, in "
                f"{known.file.name} it is {known.id}"
            )
    added = _in_order_of_ids(merged, tokenizer)
    if not added:
        return tokenizer
    (*_, file) = files.values()
    try:
        extended = type(tokenizer).from_bytes(
            tokenizer.vocabulary_bytes(),
            lower_case=tokenizer.lower_case,
            keep_accents=tokenizer.keep_accents,
            added_tokens=added,
        )
    except InputError as error:
        raise InputError(f"tokenizer {file.parent}: {error}") from None
    if extended.tokens[: tokenizer.vocab_size] != tokenizer.tokens:
        raise InputError(f"tokenizer {file.parent}: a token of its vocabulary has white space")
    return extended


def _in_order_of_ids(merged: Mapping[str, _Declaration], tokenizer: Tokenizer) -> list[AddedToken]:
    ids = {token: id for id, token in enumerate(tokenizer.tokens)}
    treated = {tokenizer.tokens[id] for id in tokenizer.special_ids}
    if isinstance(tokenizer, SentencePieceTokenizer):
        treated |= set(USER_DEFINED) & ids.keys()
    follows = [one for one in merged.values() if one.token.content not in ids]
    follows.sort(key=lambda one: (one.id is None, one.id))
    first = tokenizer.vocab_size
    ids |= {one.token.content: first + place for place, one in enumerate(follows)}
    for content, declared in merged.items():
        if declared.id not in (None, ids[content]):
            raise InputError(
                f"tokenizer {declared.file}: the added token {content!r} has id {declared.id}, by "
                f"the vocabulary of {tokenizer.vocab_size} tokens and those added before it would "
                f"have {ids[content]}"
            )
    kept = sorted(merged.keys() - treated, key=ids.__getitem__)
    return [merged[content].token for content in kept]


def _declarations(files: Mapping[str, Path], tokenizer: Tokenizer) -> Iterator[_Declaration]:
    """Yield all declarations; for each token, those with flags come first."""
    contents = {name: read_tokenizer_json(file) for name, file in files.items()}
    config = contents.get(TOKENIZER_CONFIG_FILE, {})
    decoder = config.get("added_tokens_decoder", {})
    for key, values in _of_type(
        dict, decoder, files.get(TOKENIZER_CONFIG_FILE), "added_tokens_decoder"
    ).items():
        if not key.isdecimal():
            raise InputError(
                f"tokenizer {files[TOKENIZER_CONFIG_FILE]}: added_tokens_decoder must map ids to "
                f"tokens, got {key!r}"
            )
        yield _described(files[TOKENIZER_CONFIG_FILE], values, int(key))
    described = contents.get(TOKENIZER_FILE, {}).get("added_tokens", [])
    for values in _of_type(list, described, files.get(TOKENIZER_FILE), "added_tokens"):
        yield _described(files[TOKENIZER_FILE], values, None)
    special = [
        one
        for name in (TOKENIZER_CONFIG_FILE, SPECIAL_TOKENS_FILE)
        if name in files
        for one in _special_tokens(files[name], contents[name], tokenizer)
    ]
    if special and config.get("split_special_tokens") is True:
        raise InputError(
            f"tokenizer {files[TOKENIZER_CONFIG_FILE]}: split_special_tokens=true is not supported"
        )
    yield from special
    for content, id in contents.get(ADDED_TOKENS_FILE, {}).items():
        file = files[ADDED_TOKENS_FILE]
        if not isinstance(id, int) or isinstance(id, bool):
            raise InputError(
                f"tokenizer {file}: the id of {content!r} must be a number, got {id!r}"
            )
        yield _Declaration(AddedToken(content, normalized=True), id, file)


def _special_tokens(
    file: Path, values: Mapping[str, Any], tokenizer: Tokenizer
) -> Iterator[_Declaration]:
    """Yield the tokens that a file names, then those that it lists."""
    special_ids = dict(zip(_NAMED, tokenizer.special_ids.tolist(), strict=True))
    named = {
        name: value
        for name, value in values.items()
        if name.endswith("_token") and isinstance(value, str | dict)
    }
    listed: list[Any] = []
    for name in _LISTS:
        tokens = values.get(name, [])
        if isinstance(tokens, dict):
            named |= tokens
        else:
            listed += _of_type(list, tokens, file, name)
    for name, value in named.items():
        declared = _described(file, value, None, special=True)
        if name in special_ids and declared.token.content != tokenizer.tokens[special_ids[name]]:
            raise InputError(
                f"tokenizer {file}: {name} is {declared.token.content!r}, that of the vocabulary "
                f"is {tokenizer.tokens[special_ids[name]]!r}; another is not supported"
            )
        yield declared
    for value in listed:
        yield _described(file, value, None, special=True)


def _described(file: Path, value: Any, id: int | None, *, special: bool = False) -> _Declaration:
    """Read a token given by its content, or by an object with flags and perhaps an id."""
    try:
        if isinstance(value, str):
            return _Declaration(AddedToken(value, special=special), id, file)
        values = _of_type(dict, value, file, "an added token")
        token = AddedToken.from_json(values | ({"special": True} if special else {}))
    except InputError as error:
        raise InputError(f"tokenizer {file}: {error}") from None
    if id is None and "id" in values:
        id = values["id"]
        if not isinstance(id, int) or isinstance(id, bool):
            raise InputError(
                f"tokenizer {file}: the id of {token.content!r} must be a number, got {id!r}"
            )
    return _Declaration(token, id, file)


def _of_type(kind: type[list] | type[dict], value: Any, file: Path | None, name: str) -> Any:
    if not isinstance(value, kind):
        wanted = "a list" if kind is list else "an object"
        raise InputError(f"tokenizer {file}: {name} must be {wanted}, got {str(value)[:60]!r}")
    return value
