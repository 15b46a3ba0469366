"""Quality filters: what they reject is left out and counted, and their faults are named."""

import re
import sys
from pathlib import Path

import pytest
from tiny_builds import build, write_vocabulary

from data_pipeline.build_corpus import BAD_INPUT, DONE
from data_pipeline.building import builder, parts
from data_pipeline.corpus.reader import open_corpus

WORDS = ("the", "hello", "e", "2")
GOOD = ["the hello e .", "hello the .", "e e the .", "the the hello ."]
# A filter that leaves traces of its calls, and fails on a text as long as a file exists.
STRICT = """
from pathlib import Path
def check(text, source):
    if "2" in text and Path({flag!r}).exists():
        raise LookupError("no rule for 2")
    return "starts with e" if text.startswith("e") else source != "b"
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Return a function that makes a module importable, under a name of its own."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(tmp_path)
    write_vocabulary(WORDS)
    names = []

    def write(code: str, name: str = "rules") -> str:
        name = f"{name}_{tmp_path.name}"
        sys.modules.pop(name, None)
        Path(f"{name}.py").write_text(code)
        names.append(name)
        return name

    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # of two modules within a second
    yield write
    for name in names:
        sys.modules.pop(name, None)


def documented_example() -> str:
    page = Path(__file__).parents[3] / "docs/data.md"
    (code,) = re.findall(r"```python\n(# quality\.py\n.*?)```", page.read_text(), re.S)
    return code


def test_the_documented_rules_keep_prose(module, capsys):
    rules = module(documented_example(), "quality")
    prose = "\n".join(f"{'hello the hello ' * 6}{n}." for n in range(4))
    others = {
        "number of words": "hello the.",
        "mean word length": "\n".join(f"{'e ' * 20}{n}." for n in range(4)),
        "words without letters": "\n".join(f"{'hello 2022 ' * 10}{n}." for n in range(4)),
        "lines without an end": prose.replace(".", ""),
        "repeated lines": "hello the hello the hello.\n" * 20,
    }
    flag = f"--filter={rules}:check_prose"
    assert build([prose, *others.values(), "hello"], "filtered", flag) == DONE
    printed = capsys.readouterr().out
    listed = ", ".join([*(f"{name} 1" for name in sorted(others) if name != "number of words")])
    assert f"rejected by {rules}:check_prose: 6 documents (number of words 2, {listed})" in printed
    assert build([prose], "alone") == DONE
    filtered, alone = open_corpus("filtered").metadata, open_corpus("alone").metadata
    assert filtered.fingerprint == alone.fingerprint
    assert filtered.report["rejected"] == {
        f"{rules}:check_prose": dict.fromkeys(others, 1) | {"number of words": 2}
    }
    (recorded,) = filtered.settings["filters"]
    assert recorded["name"] == f"{rules}:check_prose" and len(recorded["sha256"]) == 64
    assert set(alone.settings) == {
        *("sources", "tokenizer", "vocab_size", "lower_case", "keep_accents", "language"),
        *("held_out", "vocabulary_bytes", "seed", "longest_sentence"),
    }
    assert {"rejected", "near_duplicates"}.isdisjoint(alone.report)


def test_filters_see_the_source_and_what_those_before_them_keep(module):
    rules = module(f"{STRICT.format(flag='absent')}\ndef long(text, source): return len(text) > 11")
    Path("b.txt").write_text("hello .\n")
    documents = [*GOOD, "e hello .", "hello 2 ."]
    flags = [f"--filter={rules}:{name}" for name in ("long", "check")]
    other = "--source=b:1:text:b.txt"
    assert build(documents, "c", *flags, other) == DONE
    # "e hello ." and "hello ." are too short, and so never seen by the second filter.
    assert open_corpus("c").metadata.report["rejected"] == {
        f"{rules}:long": {"no reason given": 5},
        f"{rules}:check": {},
    }
    assert build(documents, "first", *reversed(flags), other) == DONE
    assert open_corpus("first").metadata.report["rejected"] == {
        f"{rules}:check": {"starts with e": 2, "no reason given": 1},
        f"{rules}:long": {"no reason given": 2},
    }


def test_a_failure_is_named_and_a_resumed_build_counts_the_same(
    module, monkeypatch, tmp_path, capsys
):
    monkeypatch.setattr(parts, "_BLOCK_CHARACTERS", 20)
    monkeypatch.setattr(builder, "_BLOCKS_PER_SAVE", 1)
    flag = tmp_path / "fails"
    flag.touch()
    rules = module(STRICT.format(flag=str(flag)))
    documents = [*GOOD, "hello 2 .", "e hello 2 ."]
    command = (documents, "c", f"--filter={rules}:check")
    assert build(*command) == BAD_INPUT
    error = capsys.readouterr().err.splitlines()[-1]
    for part in (
        f"error: --filter={rules}:check failed on a document of a.txt that begins 'hello 2 .'",
        f"LookupError: no rule for 2 ({rules}.py:5)",
    ):
        assert part in error
    flag.unlink()
    assert build(*command) == DONE
    assert "Resuming the build" in capsys.readouterr().err
    assert build(*command[:1], "whole", *command[2:]) == DONE
    resumed, whole = open_corpus("c").metadata, open_corpus("whole").metadata
    assert resumed == whole
    assert whole.report["rejected"] == {f"{rules}:check": {"starts with e": 2}}


def test_a_changed_filter_starts_over(module, tmp_path, capsys):
    (tmp_path / "fails").touch()
    strict = STRICT.format(flag=str(tmp_path / "fails"))
    documents = [*GOOD, "hello 2 ."]
    command = (documents, "c", f"--filter={module(strict)}:check")
    assert build(*command) == BAD_INPUT
    module(strict.replace("raise LookupError", "return True or print"))
    assert build(*command) == DONE
    errors = capsys.readouterr().err
    assert "Starting over" in errors and "filters" in errors


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("def keep(text): return True", "must take the text of a document and the name of its"),
        ("keep = 3", "keep is no function in"),
        ("def kept(text, source): return True", "keep does not exist in {}; did you mean kept?"),
        ("import absent_module", "there is no module absent_module on PYTHONPATH or in"),
        ("def keep(:", "{} cannot be imported: SyntaxError"),
        ("def keep(text, source): return text[10**6]", "failed on the sample that it is tried on"),
        ("def keep(text, source): pass", "and returned None for the sample"),
        ("def keep(text, source): return 'a\\nb'", "a reason of at most 80 characters"),
        (
            "def keep(text, source): return text if '2' in text else True",
            "and returned 'hello 2 .\\nthe .' for a document of a.txt",
        ),
        ("def keep(text, source): return f'of {hash(text)}'", "more than 100 different reasons"),
        (
            "def keep(text, source): return False",
            "the input holds no text for training that --filter keeps",
        ),
    ],
)
def test_mistakes_are_one_line_and_status_2(module, capsys, code, message):
    rules = module(code)
    documents = ["hello 2 .\nthe .", *(f"the {'e ' * n}." for n in range(120))]
    assert build(documents, "c", f"--filter={rules}:keep") == BAD_INPUT
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ") and message.format(rules) in error
    assert not Path("c").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--filter=rules"], "--filter must be module:function, each given once, got 'rules'"),
        (["--filter=a.b:c", "--filter=a.b:c"], "each given once, got 'a.b:c'"),
        (["--filter=absent_rules:keep"], "there is no module absent_rules on PYTHONPATH"),
    ],
)
def test_mistakes_in_names(module, capsys, flags, message):
    assert build(GOOD, "c", *flags) == BAD_INPUT
    assert message in capsys.readouterr().err
