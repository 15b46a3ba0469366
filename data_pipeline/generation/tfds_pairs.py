"""Pairs from TensorFlow data sets prepared on this machine; nothing is downloaded."""

from pathlib import Path

from data_pipeline.errors import InputError
from data_pipeline.generation.examples import TextPair, make_pair


def read_tfds_pairs(
    name_or_dir: str | Path,
    split: str,
    source_feature: str,
    target_feature: str | None,
    data_dir: str | None = None,
) -> list[TextPair]:
    """Read a split of a data set, in file order.

    Args:
        name_or_dir: its name, such as `ted_hrlr_translate/de_to_en`, or the directory of one of its
            versions.
        split: the split.
        source_feature: name of the feature with sources; `outer/inner` for one inside another.
        target_feature: name of the feature with targets; None if there are no targets.
        data_dir: the directory of TFDS data sets; None for the TFDS default.

    Returns:
        The pairs; their ids are the example numbers, from 0.

    Raises:
        InputError: there is no such data set or split, it is not prepared, it lacks a feature or
            has one that is not a text, a text is not UTF-8, or an example has an empty target.
    """
    from data_pipeline.sources.tfds import read_features

    features = [source_feature] if target_feature is None else [source_feature, target_feature]
    pairs = []
    for number, texts in enumerate(read_features(str(name_or_dir), split, features, data_dir)):
        target = None if target_feature is None else texts[1]
        place = f"data set {name_or_dir}, split {split}, example {number}"
        pair = make_pair(str(number), texts[0], target, place)
        if pair is not None:
            pairs.append(pair)
    if not pairs:
        raise InputError(f"data set {name_or_dir}: split {split} has no example with text")
    return pairs
