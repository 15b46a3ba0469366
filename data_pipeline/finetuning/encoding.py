"""Encoding of fine-tuning examples: special tokens, truncation and labels."""

from collections.abc import Sequence

import numpy as np

from data_pipeline.finetuning.encoded_examples import EncodedExamples, join_sequences
from data_pipeline.finetuning.examples import (
    ChoiceExample,
    TaggedExample,
    TextExample,
)
from data_pipeline.finetuning.race import NUM_OPTIONS, join_option, lay_out_choice
from data_pipeline.finetuning.tagging import TaggedRow, lay_out_words
from data_pipeline.planning.pairs import count_truncated
from data_pipeline.tokenizers.albert import AlbertTokenizer


def encode_texts(
    tokenizer: AlbertTokenizer,
    examples: Sequence[TextExample],
    *,
    max_seq_length: int,
    regression: bool,
) -> EncodedExamples:
    """Encode texts as `[CLS] A [SEP]` or `[CLS] A [SEP] B [SEP]`, with label 0 for unknown labels.

    Args:
        tokenizer: the tokenizer of the model.
        examples: at least one example.
        max_seq_length: maximum number of tokens in a row, including special tokens.
        regression: True if labels are scores.
    """
    encode = tokenizer.tokenizer.encode_lines
    first_ids, first = encode([example.text_a for example in examples])
    second_ids, second = encode([example.text_b or "" for example in examples])
    lengths = np.stack([first, second], axis=1)
    kept = lengths - count_truncated(lengths, max_seq_length - np.where(second > 0, 3, 2))
    cls, sep = (np.array([id], np.int32) for id in (tokenizer.cls_id, tokenizer.sep_id))
    sequences: dict[str, list[np.ndarray]] = {"input_ids": [], "token_type_ids": []}
    starts = np.cumsum(lengths, axis=0) - lengths
    for (a, b), (kept_a, kept_b) in zip(starts, kept, strict=True):
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
    """Encode each option as `[CLS] context [SEP] question with option [SEP]`.

    Args:
        tokenizer: the tokenizer of the model.
        examples: at least one example.
        max_seq_length: maximum number of tokens in a row, including special tokens.
        max_qa_length: number of tokens to keep at the end of the question with the option.

    Returns:
        Examples with one sequence per option, and the index of the correct option as label.

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
    """Encode sentences as `[CLS] words [SEP]`, with the tag of each word at its first token.

    Args:
        tokenizer: the tokenizer of the model.
        examples: at least one example.
        tags: all tags, in the order of their indices.
        max_seq_length: maximum number of tokens in a row; a longer sentence takes several rows.

    Returns:
        The rows of all sentences in order, and the rows of each sentence.
    """
    indices = {tag: index for index, tag in enumerate(tags)}
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
                labels[row.word_positions] = [indices[tag] for tag in here]
            fields = (row.input_ids, np.zeros_like(row.input_ids), labels, mask)
            for name, values in zip(names, fields, strict=True):
                sequences[name].append(values)
    return join_sequences(sequences, {}), laid_out
