"""Near-duplicates: found as often as their exact similarity says, and the first one stays."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_builds import build, write_vocabulary

from data_pipeline.build_corpus import BAD_INPUT, DONE, INTERRUPTED
from data_pipeline.building import builder, parts
from data_pipeline.building.journal import Journal
from data_pipeline.building.selection.clusters import cluster, find_near_duplicates
from data_pipeline.building.selection.minhash import MinHash, WordHashes, hash_ngrams
from data_pipeline.corpus.reader import open_corpus

FINEWEB = MinHash(ngram=5, bands=14, band_size=8, seed=1)
MINHASH = "--near_duplicates=minhash"
WORDS = [f"w{number}" for number in range(400)]


def bands(*columns):
    return [np.array(column, np.uint64) for column in columns]


def test_clusters_are_linked_by_chains_and_the_first_document_stays():
    # 1, 3 and 4 are linked by way of 3, in two bands; 5 has the text of 0, and 2 the text of 4.
    hashes = np.array([10, 11, 14, 13, 14, 10, 16], np.uint64)
    linked = bands([1, 2, 4, 2, 4, 1, 9], [1, 2, 3, 3, 3, 1, 9])
    assert cluster(linked, 7).tolist() == [0, 1, 1, 1, 1, 0, 6]
    dropped, clusters = find_near_duplicates(hashes, linked)
    assert (dropped.tolist(), clusters) == ([13, 14], 1)
    nothing = find_near_duplicates(hashes[:0], bands([], []))
    assert (nothing[0].tolist(), nothing[1]) == ([], 0)


def test_clusters_agree_with_sets():
    random = np.random.default_rng(0)
    for most in (20, 150, 1000):
        linked = random.integers(0, most, (4, 300)).astype(np.uint64)
        groups = [{number} for number in range(300)]
        for column in linked:
            for value in set(column.tolist()):
                joined = set().union(*(groups[n] for n in np.flatnonzero(column == value)))
                for number in joined:
                    groups[number] = joined
        assert cluster(linked, 300).tolist() == [min(group) for group in groups]


def test_ngrams_are_of_words_alone():
    words = WordHashes()
    plain = hash_ngrams(words.hash("the one two three the one two"), 3)
    assert len(plain) == 5 and len(set(plain.tolist())) == 4  # "the one two" twice
    assert (plain == hash_ngrams(words.hash("The One, two:\n(THREE) the 'one' two!"), 3)).all()
    assert not set(plain.tolist()) & set(hash_ngrams(words.hash("one the two three"), 3).tolist())
    assert len(hash_ngrams(words.hash("one two"), 3)) == 0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([MINHASH], "--near_duplicates=minhash needs the package datasketch: pip install 'alb"),
        (["--minhash_bands=20"], "--minhash_bands must be left out without --near_duplicates=minh"),
        ([MINHASH, "--minhash_bands=0"], "--minhash_bands must be a whole number in [1, 128], got"),
        (["--near_duplicates=all"], "--near_duplicates"),
    ],
)
def test_mistakes_are_one_line_and_status_2(flags, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert build(["w1"], "c", *flags) == BAD_INPUT
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and message in error


def pairs_of_similarity(similarity, count, random):
    """Make pairs of documents that share all their n-grams but those of their ends."""
    ngrams = 150  # of each document
    shared = round(2 * ngrams * similarity / (1 + similarity))
    for _ in range(count):
        words = [f"x{number}" for number in random.integers(0, 1 << 40, 2 * (ngrams + 4))]
        first = words[: ngrams + 4]
        yield first, first[: shared + 4] + words[ngrams + 4 : 2 * ngrams + 4 - shared]


def exact_jaccard(first, second, n=5):
    one, other = (
        {tuple(words[k : k + n]) for k in range(len(words) - n + 1)} for words in (first, second)
    )
    return len(one & other) / len(one | other)


@pytest.mark.interop
@pytest.mark.parametrize("similarity", [0.4, 0.6, 0.7, 0.75, 0.8, 0.9])
def test_documents_collide_as_often_as_their_exact_similarity_says(similarity):
    pairs = list(pairs_of_similarity(similarity, 300, np.random.default_rng(5)))
    exact = np.array([exact_jaccard(*pair) for pair in pairs])
    assert np.allclose(exact, similarity, atol=0.005)
    is_signed, signatures = FINEWEB.sign([[" ".join(words)] for pair in pairs for words in pair])
    assert is_signed.all() and signatures.shape == (600, 14)
    is_equal = signatures[0::2] == signatures[1::2]
    # Each band alone, and any of them, within four standard deviations of a binomial.
    for found, expected in (
        (is_equal, exact[0] ** 8),
        (is_equal.any(axis=1), 1 - (1 - exact[0] ** 8) ** 14),
    ):
        deviation = np.sqrt(expected * (1 - expected) / found.size)
        assert abs(found.mean() - expected) < 4 * deviation
    assert FINEWEB.collision_probability(exact[0]) == pytest.approx(expected)


@pytest.fixture
def documents(tmp_path, monkeypatch):
    """Make documents of 120 words: three clusters, and 20 that are like no other."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(parts, "_BLOCK_CHARACTERS", 2000)
    monkeypatch.setattr(builder, "_BLOCKS_PER_SAVE", 2)
    write_vocabulary(WORDS)
    random = np.random.default_rng(2)
    originals = [" ".join(random.choice(WORDS, 120)) for _ in range(23)]

    def edit(document, place):
        words = document.split()
        words[place] = "w0" if words[place] != "w0" else "w1"
        return " ".join(words)

    made = {name: originals.pop() for name in ("one", "two", "three")}
    made |= {
        "one edited": edit(made["one"], 50),
        "one edited again": f"{made['one']} w7 w8",
        "one in two paragraphs": made["one"].replace(" w", ". W", 1).replace(" ", "\n", 60),
        "two edited": edit(made["two"], 0),
        "three shortened": " ".join(made["three"].split()[:118]),
        "short": "w1 w2 w3",
        "short again": "w1 w2 w3.",
    }
    return made | {f"other {number}": text for number, text in enumerate(originals)}


def lay_out(documents, *names):
    """Return the documents with the named ones first, in this order."""
    return [documents[name] for name in (*names, *(n for n in documents if n not in names))]


@pytest.mark.interop
def test_of_each_cluster_the_first_document_stays(documents, capsys):
    order = ("two edited", "other 3", "one edited again", "three", "one", "two")
    texts = lay_out(documents, *order)
    texts += [documents["one edited again"], documents["one"]]  # duplicates of one that stays, too
    assert build(texts, "found", MINHASH) == DONE
    printed = capsys.readouterr().out
    gone = {"one", "one edited", "one in two paragraphs", "two", "three shortened"}
    kept = {name: text for name, text in documents.items() if name not in gone}
    assert build(lay_out(kept, *(name for name in order if name in kept)), "kept") == DONE
    found, alone = open_corpus("found").metadata, open_corpus("kept").metadata
    assert found.fingerprint == alone.fingerprint
    assert found.report["duplicate_documents"] == 1
    counts = found.report["near_duplicates"]
    sizes = [len(text) - text.count("\n") for text in texts]
    dropped = sum(len(documents[name]) - documents[name].count("\n") for name in (*gone, "one"))
    assert counts == {
        "clusters": 3,
        "documents": 6,
        "characters": dropped,
        "characters_before": sum(sizes),
    }
    assert (
        "near-duplicates: 3 clusters, of which the first document stays; dropped 6 documents, "
        f"{100 * dropped / sum(sizes):.1f} % of the text\n"
    ) in printed
    assert found.settings["near_duplicates"]["scheme"] == "affine32"
    assert found.versions["datasketch"].startswith("2.")


@pytest.mark.interop
def test_processes_and_interruptions_change_nothing(documents, monkeypatch, capsys):
    rules = Path("length_rule.py")
    rules.write_text("def long(text, source): return len(text) > 20 or 'short'")
    texts = lay_out(documents, "one edited")
    flags = (MINHASH, "--filter=length_rule:long", "--held_out=0.2", "--minhash_bands=20")
    assert build(texts, "whole", *flags) == DONE
    assert build(texts, "two", *flags, "--num_processes=2") == DONE
    save, entries = Journal.save, 0

    def save_and_stop(journal, directory):
        nonlocal entries
        save(journal, directory)
        entries += 1
        # The first entry of a run may be that of the last run again.
        if entries % 2 == 0:
            raise KeyboardInterrupt

    monkeypatch.setattr(Journal, "save", save_and_stop)
    interrupted = 0
    while (status := build(texts, "resumed", *flags)) != DONE:
        assert status == INTERRUPTED
        interrupted += 1
        entries = 0
        for band in Path("resumed.partial/work").glob("band_*"):
            band.write_bytes(band.read_bytes() + b"written after the journal")
    assert interrupted >= 5
    assert "Starting over" not in capsys.readouterr().err
    whole, *others = (open_corpus(name).metadata for name in ("whole", "two", "resumed"))
    assert others == [whole, whole]
    assert whole.report["rejected"] == {"length_rule:long": {"short": 2}}
    assert whole.report["near_duplicates"]["clusters"] == 3
    assert whole.settings["near_duplicates"]["bands"] == 20
