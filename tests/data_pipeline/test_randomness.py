"""Stateless random numbers, and the keyed permutation."""

import collections

import numpy as np
import pytest
import tensorflow as tf

from data_pipeline.randomness import derive_key, permute, random_bits, scale_bits


def test_published_values():
    ones = np.uint64(2**64 - 1)
    expected = {
        (0, (0, 0, 0)): "6627e8d5 e169c58d bc57ac4c 9b00dbd8",
        (int(ones), (ones, 0xFFFFFFFF, 0xFFFFFFFF)): "408f276d 41c83b0e a20bc7c6 6d5451fd",
        (0x299F31D0A4093822, (0x85A308D3243F6A88, 0x13198A2E, 0x03707344)): (
            "d16cfe09 94fdcceb 5001e420 24126ea1"
        ),
    }
    for (key, counter), words in expected.items():
        assert " ".join(f"{word:08x}" for word in random_bits(key, *counter)) == words


def test_random_bits_equal_those_of_tensorflow():
    key, first = derive_key(7, "masks"), 2**40 + 3
    theirs = tf.raw_ops.StatelessRandomUniformFullIntV2(
        shape=[50, 4],
        key=tf.constant([key], tf.uint64),
        counter=tf.constant([first, 0], tf.uint64),
        alg=tf.random.Algorithm.PHILOX.value,
        dtype=tf.uint32,
    )
    np.testing.assert_array_equal(random_bits(key, first + np.arange(50)), theirs.numpy())


def test_scaled_bits_are_uniform():
    numbers = scale_bits(random_bits(3, np.arange(60_000))[:, 2], 6)
    counts = np.bincount(numbers, minlength=6)
    assert len(counts) == 6 and (abs(counts - 10_000) < 5 * 100).all()


@pytest.mark.parametrize("size", [1, 2, 3, 16, 17, 1000, 4097])
def test_permutation_holds_every_index_once(size):
    for key in range(3):
        order = permute(np.arange(size), size, key=key)
        np.testing.assert_array_equal(np.sort(order), np.arange(size))
        some = np.arange(size)[::3]
        np.testing.assert_array_equal(permute(some, size, key=key), order[::3])


def test_permutations_of_four_are_equally_likely():
    orders = collections.Counter(
        tuple(permute(np.arange(4), 4, key=derive_key("order", number)).tolist())
        for number in range(2_400)
    )
    assert len(orders) == 24
    assert all(abs(count - 100) < 5 * 10 for count in orders.values())


def test_neighbors_are_separated():
    order = permute(np.arange(100_000), 100_000, key=1)
    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 0.02
    assert abs(np.corrcoef(order, np.arange(100_000))[0, 1]) < 0.02
    assert (np.abs(np.diff(order)) == 1).mean() < 1e-3
