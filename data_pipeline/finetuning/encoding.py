"""Examples of the fine-tuning tasks to ids: special pieces, truncation, labels."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from data_pipeline.finetuning.encoded_examples import EncodedExamples, join_sequences
from data_pipeline.finetuning.examples import (
    ChoiceExample,
    TaggedExample,
    TextExample,
)
from data_pipeline.finetuning.race import NUM_OPTIONS, join_option, lay_out_choice
from data_pipeline.finetuning.tagging import TaggedRow, lay_out_words
from data_pipeline.tokenizers.albert import AlbertTokenizer


def truncate_pairs(
    first: Int[np.ndarray, " pairs"],
    second: Int[np.ndarray, " pairs"],
    budget: Int[np.ndarray, " pairs"],
) -> tuple[Int[np.ndarray, " pairs"], Int[np.ndarray, " pairs"]]:
    """How many pieces of each text of a pair are kept: what is too much is dropped piece by piece
    from the end of the longer one, of the second where both are equally long.

    Example: of 9 and 4 pieces 8 fit: `(4, 4)`; of 4 and 4 pieces 5: `(3, 2)`.

    Args:
        first: pieces of the first texts.
        second: pieces of the second ones, 0 where there is none.
        budget: pieces that both may have together.
    """
    surplus = np.maximum(first + second - budget, 0)
    from_first = np.minimum(surplus, np.maximum(first - second, 0))
    from_second = np.minimum(surplus, np.maximum(second - first, 0))
    rest = surplus - from_first - from_second
    return first - from_first - rest // 2, second - from_second - (rest - rest // 2)


def encode_texts(
    tokenizer: AlbertTokenizer,
    examples: Sequence[TextExample],
    *,
    max_seq_length: int,
    regression: bool,
) -> EncodedExamples:
    """`[CLS] A [SEP]` or `[CLS] A [SEP] B [SEP]`, with the label of each; 0 where it is not known.

    Args:
        tokenizer: of the model.
        examples: at least one.
        max_seq_length: pieces that a row may have, with the special ones.
        regression: whether labels are scores.
    """
    encode = tokenizer.tokenizer.encode_lines
    first_ids, first = encode([example.text_a for example in examples])
    second_ids, second = encode([example.text_b or "" for example in examples])
    kept = truncate_pairs(first, second, max_seq_length - np.where(second > 0, 3, 2))
    cls, sep = (np.array([id], np.int32) for id in (tokenizer.cls_id, tokenizer.sep_id))
    sequences: dict[str, list[np.ndarray]] = {"input_ids": [], "token_type_ids": []}
    starts = np.cumsum(first) - first, np.cumsum(second) - second
    for a, b, kept_a, kept_b in zip(*starts, *kept, strict=True):
        parts = [cls, first_ids[a : a + kept_a], sep]
        if kept_b:
            parts += [second_ids[b : b + kept_b], sep]
        ids = np.concatenate(parts)
        sequences["input_ids"].append(ids)
        sequences["token_type_ids"].append((np.arange(len(ids)) >= kept_a + 2).astype(np.int32))
    labels = np.array(
        [0 if example.label is None else example.label for example in examples],
        np.float32 if regression else np.int32,
    )
    return join_sequences(sequences, {"labels": labels})


def encode_choices(
    tokenizer: AlbertTokenizer,
    examples: Sequence[ChoiceExample],
    *,
    max_seq_length: int,
    max_qa_length: int,
) -> EncodedExamples:
    """`[CLS] context [SEP] question with option [SEP]` for each option; the right one's number.

    Args:
        tokenizer: of the model.
        examples: at least one.
        max_seq_length: pieces that a row may have, with the special ones.
        max_qa_length: last pieces of question and option that are kept.

    Raises:
        InputError: the lengths leave no room for the context.
    """
    encode = tokenizer.tokenizer.encode
    sequences: dict[str, list[np.ndarray]] = {"input_ids": [], "token_type_ids": []}
    for example in examples:
        context = encode(example.context)
        for option in example.options:
            row = lay_out_choice(
                context,
                encode(join_option(example.question, option)),
                cls_id=tokenizer.cls_id,
                sep_id=tokenizer.sep_id,
                max_seq_length=max_seq_length,
                max_qa_length=max_qa_length,
            )
            sequences["input_ids"].append(row.input_ids)
            sequences["token_type_ids"].append(row.token_type_ids)
    labels = np.array([example.label or 0 for example in examples], np.int32)
    return join_sequences(sequences, {"labels": labels}, choices=NUM_OPTIONS)


def encode_words(
    tokenizer: AlbertTokenizer,
    examples: Sequence[TaggedExample],
    tags: Sequence[str],
    *,
    max_seq_length: int,
) -> tuple[EncodedExamples, list[list[TaggedRow]]]:
    """`[CLS] words [SEP]`, with the number of each word's tag at its first piece.

    Args:
        tokenizer: of the model.
        examples: at least one.
        tags: in the order of their numbers.
        max_seq_length: pieces that a row may have; a longer sentence has several rows.

    Returns:
        The rows of all sentences one after the other, and those of each.
    """
    numbers = {tag: number for number, tag in enumerate(tags)}
    names = ("input_ids", "token_type_ids", "labels", "label_mask")
    sequences: dict[str, list[np.ndarray]] = {name: [] for name in names}
    laid_out = []
    for example in examples:
        ids, lengths = tokenizer.tokenizer.encode_lines(example.words)
        rows = lay_out_words(
            [word.tolist() for word in np.split(ids, np.cumsum(lengths)[:-1])],
            cls_id=tokenizer.cls_id,
            sep_id=tokenizer.sep_id,
            unk_id=tokenizer.tokenizer.unk_id,
            max_seq_length=max_seq_length,
        )
        laid_out.append(rows)
        for row in rows:
            labels, mask = np.zeros_like(row.input_ids), np.zeros_like(row.input_ids)
            mask[row.word_positions] = 1
            if example.tags is not None:
                here = example.tags[row.first_word : row.first_word + len(row.word_positions)]
                labels[row.word_positions] = [numbers[tag] for tag in here]
            fields = (row.input_ids, np.zeros_like(row.input_ids), labels, mask)
            for name, values in zip(names, fields, strict=True):
                sequences[name].append(values)
    return join_sequences(sequences, {}), laid_out
