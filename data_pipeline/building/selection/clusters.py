"""Clusters of near-duplicate documents, linked by equal bands of their signatures."""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Int64, UInt64


def find_near_duplicates(
    hashes: UInt64[np.ndarray, " documents"],
    bands: Iterable[UInt64[np.ndarray, " documents"]],
) -> tuple[UInt64[np.ndarray, " near_duplicates"], int]:
    """Find near-duplicates among documents in reading order.

    Two documents are in one cluster if they are linked by a chain of pairs that share a band. The
    first document of a cluster is kept. Texts equal to it are not counted as near-duplicates; they
    are left to the removal of duplicates.

    Args:
        hashes: the hashes of the documents' texts.
        bands: for each band, its hash in all documents. One band is in memory at a time; with the
            arrays for sorting it, that takes about 40 bytes per document.

    Returns:
        The sorted hashes of the near-duplicates, and the number of clusters that have any.

    Example: documents 1, 2, 3 and 4 with bands ``[7, 8, 7, 9]`` and ``[5, 6, 4, 6]`` form two
    clusters; 3 and 4 are dropped.
    """
    firsts = cluster(bands, len(hashes))
    is_dropped = hashes != hashes[firsts]
    return np.unique(hashes[is_dropped]), len(np.unique(firsts[is_dropped]))


def cluster(
    bands: Iterable[UInt64[np.ndarray, " documents"]], num_documents: int
) -> Int64[np.ndarray, " documents"]:
    """Return, for each document, the number of the first document in its cluster.

    Example: ``cluster([[7, 8, 7, 9], [5, 6, 4, 6]], 4)`` is ``[0, 1, 0, 1]``.
    """
    firsts = np.arange(num_documents)
    for keys in bands:
        order = np.argsort(keys, kind="stable")
        is_repeated = keys[order[1:]] == keys[order[:-1]]
        _unite(firsts, order[1:][is_repeated], order[:-1][is_repeated])
    return _find_roots(firsts, firsts)


def _unite(
    parents: Int64[np.ndarray, " documents"],
    left: Int64[np.ndarray, " pairs"],
    right: Int64[np.ndarray, " pairs"],
) -> None:
    """Unite the clusters of pairs of documents, in place.

    The parent of a document is an earlier one of its cluster; the first document is its own parent.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    pairs = np.stack([_find_roots(parents, left), _find_roots(parents, right)])
    pairs = pairs[:, pairs[0] != pairs[1]]
    roots, (rows, columns) = np.unique(pairs, return_inverse=True)
    edges = coo_array((np.ones(len(rows), bool), (rows, columns)), (len(roots), len(roots)))
    _, components = connected_components(edges, directed=False)
    # Roots are sorted, so the first root of a component is its first document.
    _, first, component = np.unique(components, return_index=True, return_inverse=True)
    parents[roots] = roots[first[component]]


def _find_roots(
    parents: Int64[np.ndarray, " documents"], documents: Int64[np.ndarray, " n"]
) -> Int64[np.ndarray, " n"]:
    while True:
        above = parents[documents]
        if np.array_equal(above, documents):
            return above
        documents = above
