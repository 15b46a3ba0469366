"""Quality filters: what they reject is left out and counted, and their faults are named."""

import re
import sys
from pathlib import Path

import pytest

from data_pipeline.build_corpus import BAD_INPUT, DONE, main
from data_pipeline.building import builder, encoding
from data_pipeline.corpus.reader import open_corpus

WORDS = ("the", "hello", "e", "2")
GOOD = ["the hello e .", "hello the .", "e e the .", "the the hello ."]
# A filter that leaves traces of its calls, and fails on a text as long as a file is there.
STRICT = """
from pathlib import Path
def check(text, source):
    if "2" in text and Path({flag!r}).exists():
        raise LookupError("no rule for 2")
    return "starts with e" if text.startswith("e") else source != "b"
"""


@pytest.fixture
def vocabulary(tmp_path):
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", *WORDS]
    (tmp_path / "vocab.txt").write_text("\n".join(tokens) + "\n")
    return tmp_path / "vocab.txt"


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Return a function that makes a module importable, under a name of its own."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(tmp_path)
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


def build(documents, vocabulary, output, *more):
    text, file = "\n\n".join(documents) + "\n", Path("a.txt")
    if not file.exists() or file.read_text() != text:  # a build is resumed on the same file
        file.write_text(text)
    command = ["build_corpus", "--source=a:1:text:a.txt", f"--output_dir={output}"]
    shared = [f"--tokenizer={vocabulary}", "--held_out=0", "--num_processes=1"]
    return main([*command, *shared, *more])


def documented_example() -> str:
    page = Path(__file__).parents[3] / "docs/data.md"
    (code,) = re.findall(r"```python\n(# quality\.py\n.*?)```", page.read_text(), re.S)
    return code


def test_the_documented_rules_keep_prose(module, vocabulary, capsys):
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
    assert build([prose, *others.values(), "hello"], vocabulary, "filtered", flag) == DONE
    printed = capsys.readouterr().out
    listed = ", ".join([*(f"{name} 1" for name in sorted(others) if name != "number of words")])
    assert f"rejected by {rules}:check_prose: 6 documents (number of words 2, {listed})" in printed
    assert build([prose], vocabulary, "alone") == DONE
    filtered, alone = open_corpus("filtered").metadata, open_corpus("alone").metadata
    assert filtered.fingerprint == alone.fingerprint
    assert filtered.report["rejected"] == {
        f"{rules}:check_prose": dict.fromkeys(others, 1) | {"number of words": 2}
    }
    (recorded,) = filtered.settings["filters"]
    assert recorded["name"] == f"{rules}:check_prose" and len(recorded["sha256"]) == 64
    assert "filters" not in alone.settings and "rejected" not in alone.report


def test_filters_see_the_source_in_order_and_processes_change_nothing(
    module, vocabulary, monkeypatch, tmp_path
):
    monkeypatch.setattr(encoding, "_BLOCK_CHARACTERS", 30)
    rules = module(f"{STRICT.format(flag='absent')}\ndef long(text, source): return len(text) > 11")
    Path("b.txt").write_text("hello .\n")
    documents = [*GOOD, "e hello .", "hello 2 ."]
    flags = [f"--filter={rules}:{name}" for name in ("long", "check")]
    for processes in (1, 2):
        more = ("--source=b:1:text:b.txt", f"--num_processes={processes}")
        monkeypatch.setenv("PYTHONPATH", "")  # workers find the module as this process does
        assert build(documents, vocabulary, f"c{processes}", *flags, *more) == DONE
    one, two = (open_corpus(f"c{processes}").metadata for processes in (1, 2))
    assert one == two
    # "e hello ." and "hello ." are too short, and so never seen by the second filter.
    assert one.report["rejected"] == {
        f"{rules}:long": {"no reason given": 5},
        f"{rules}:check": {},
    }
    assert build(documents, vocabulary, "first", *reversed(flags), more[0]) == DONE
    assert open_corpus("first").metadata.report["rejected"] == {
        f"{rules}:check": {"starts with e": 2, "no reason given": 1},
        f"{rules}:long": {"no reason given": 2},
    }


def test_a_failure_is_named_and_a_resumed_build_counts_the_same(
    module, vocabulary, monkeypatch, tmp_path, capsys
):
    monkeypatch.setattr(encoding, "_BLOCK_CHARACTERS", 20)
    monkeypatch.setattr(builder, "_BLOCKS_PER_SAVE", 1)
    flag = tmp_path / "fails"
    flag.touch()
    rules = module(STRICT.format(flag=str(flag)))
    documents = [*GOOD, "hello 2 .", "e hello 2 ."]
    command = (documents, vocabulary, "c", f"--filter={rules}:check")
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
    assert build(*command[:2], "whole", *command[3:]) == DONE
    resumed, whole = open_corpus("c").metadata, open_corpus("whole").metadata
    assert resumed == whole
    assert whole.report["rejected"] == {f"{rules}:check": {"starts with e": 2}}


def test_a_changed_filter_starts_over(module, vocabulary, tmp_path, capsys):
    (tmp_path / "fails").touch()
    strict = STRICT.format(flag=str(tmp_path / "fails"))
    documents = [*GOOD, "hello 2 ."]
    command = (documents, vocabulary, "c", f"--filter={module(strict)}:check")
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
def test_mistakes_are_one_line_and_status_2(module, vocabulary, capsys, code, message):
    rules = module(code)
    documents = ["hello 2 .\nthe .", *(f"the {'e ' * n}." for n in range(120))]
    assert build(documents, vocabulary, "c", f"--filter={rules}:keep") == BAD_INPUT
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
def test_mistakes_in_names(module, vocabulary, capsys, flags, message):
    assert build(GOOD, vocabulary, "c", *flags) == BAD_INPUT
    assert message in capsys.readouterr().err
