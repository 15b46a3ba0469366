"""RACE: both forms of its files, their errors, rows of options."""

import json
import tarfile
from pathlib import Path

import pytest

from data_pipeline.errors import InputError
from data_pipeline.finetuning.examples import ChoiceExample
from data_pipeline.finetuning.race import (
    RaceGroup,
    group_accuracies,
    join_option,
    lay_out_choice,
    read_race,
)

REAL_FILE = Path("../shared/data/race/RACE-sample.tar.xz")
OPTIONS = ["wet", "dry", "hot", "new"]


def passage(name="middle1.txt", **fields):
    return {
        "id": name,
        "article": "It rains.",
        "questions": ["Is it _ ?", "Why?"],
        "options": [OPTIONS, OPTIONS],
        "answers": ["A", "D"],
    } | fields


def write(tmp_path, files):
    for name, passages in files.items():
        path = tmp_path / "train" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(map(json.dumps, passages)))
    return tmp_path


def test_one_passage_per_file_and_all_in_one_are_the_same(tmp_path):
    passages = {
        "middle": [passage("middle1.txt"), passage("middle2.txt", answers=["B", "C"])],
        "high": [passage("high1.txt", questions=["Who?"], options=[OPTIONS], answers=["C"])],
    }
    single = {
        f"{group}/{number}.txt": [one]
        for group, several in passages.items()
        for number, one in enumerate(several)
    }
    joined = {f"{group}/all.txt": several for group, several in passages.items()}
    examples = read_race(write(tmp_path / "single" / "RACE", single).parent, "train")
    assert examples == read_race(write(tmp_path / "joined", joined), "train")
    options = tuple(OPTIONS)
    assert examples == [
        ChoiceExample("middle1.txt/0", "It rains.", "Is it _ ?", options, 0, "middle"),
        ChoiceExample("middle1.txt/1", "It rains.", "Why?", options, 3, "middle"),
        ChoiceExample("middle2.txt/0", "It rains.", "Is it _ ?", options, 1, "middle"),
        ChoiceExample("middle2.txt/1", "It rains.", "Why?", options, 2, "middle"),
        ChoiceExample("high1.txt/0", "It rains.", "Who?", options, 2, "high"),
    ]
    assert read_race(tmp_path / "joined", "train", RaceGroup.HIGH) == examples[4:]
    assert read_race(tmp_path / "joined", "train", RaceGroup.MIDDLE) == examples[:4]


def test_an_object_over_many_lines_and_no_answers(tmp_path):
    unanswered = passage()
    del unanswered["answers"]
    (tmp_path / "test" / "middle").mkdir(parents=True)
    (tmp_path / "test" / "middle" / "1.txt").write_text(json.dumps(unanswered, indent=2))
    examples = read_race(tmp_path, "test", RaceGroup.MIDDLE)
    assert [example.label for example in examples] == [None, None]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"options": [OPTIONS, OPTIONS[:3]]}, "question 1: expected 4 options, found 3"),
        ({"options": [[*OPTIONS, "x"], OPTIONS]}, "question 0: expected 4 options, found 5"),
        ({"options": [OPTIONS, [1, 2, 3, 4]]}, "question 1: options must be a list of texts"),
        ({"options": [OPTIONS]}, "2 questions, 1 lists of options and 2 answers"),
        ({"answers": ["A"]}, "2 questions, 2 lists of options and 1 answers"),
        ({"answers": ["A", "E"]}, "question 1: the answer must be A, B, C or D, found 'E'"),
        ({"answers": ["AB", "A"]}, "question 0: the answer must be A, B, C or D, found 'AB'"),
        ({"questions": ["Why?", " "]}, "question 1: expected a text, found ' '"),
        ({"article": ""}, "article is empty"),
        ({"article": None}, "article must be a text, found None"),
        ({"questions": "Why?"}, "questions must be a list, found 'Why"),
        ({"id": 5}, "id must be a text, found 5"),
        ({"id": "middle0.txt"}, "the passage middle0.txt is in .*all.txt:1 too"),
        ({"article": "\ud800"}, r"'\\ud800' is not Unicode text"),
    ],
)
def test_errors_name_file_and_line(tmp_path, fields, message):
    passages = [passage("middle0.txt"), passage(**fields)]
    with pytest.raises(InputError, match=f"all.txt:2: {message}") as error:
        read_race(write(tmp_path, {"middle/all.txt": passages}), "train", RaceGroup.MIDDLE)
    assert "\n" not in str(error.value)


def test_missing_and_damaged_files(tmp_path):
    write(tmp_path, {"middle/1.txt": [passage()]})
    with pytest.raises(InputError, match=r"train/high has no passage \(\*.txt\)"):
        read_race(tmp_path, "train")
    (tmp_path / "train" / "middle" / "2.txt").write_text('{"id": "x",')
    with pytest.raises(InputError, match=r"2.txt:1: this is not JSON"):
        read_race(tmp_path, "train", RaceGroup.MIDDLE)


def test_an_option_fills_the_blank_or_follows():
    assert join_option("Is it _ ?", "wet") == "Is it wet ?"
    assert join_option("_ and _", "a") == "a and a"
    assert join_option("Why?", "So.") == "Why? So."


def test_rows_keep_the_start_of_the_context_and_the_end_of_the_option():
    row = lay_out_choice([11, 12, 13], [7, 8, 9], cls_id=2, sep_id=3)
    assert row.input_ids.tolist() == [2, 11, 12, 13, 3, 7, 8, 9, 3]
    assert row.token_type_ids.tolist() == [0] * 5 + [1] * 4
    row = lay_out_choice(
        [11, 12, 13], [7, 8, 9], cls_id=2, sep_id=3, max_seq_length=7, max_qa_length=2
    )
    assert row.input_ids.tolist() == [2, 11, 12, 3, 8, 9, 3]
    assert row.token_type_ids.tolist() == [0, 0, 0, 0, 1, 1, 1]
    for sizes in ({"max_seq_length": 6}, {"max_qa_length": 0}):
        with pytest.raises(InputError, match="leaves no room for a context"):
            lay_out_choice([11, 12], [7, 8, 9], cls_id=2, sep_id=3, **sizes)


def test_accuracies_of_the_schools():
    examples = [
        ChoiceExample(str(n), "C", "Q", tuple(OPTIONS), n % 4, "middle" if n < 3 else "high")
        for n in range(4)
    ]
    assert group_accuracies(examples, [0, 1, 3, 3]) == {
        "accuracy": 0.75,
        "middle_accuracy": pytest.approx(2 / 3),
        "high_accuracy": 1.0,
    }
    assert group_accuracies(examples[3:], [0]) == {"accuracy": 0.0, "high_accuracy": 0.0}


@pytest.mark.slow
@pytest.mark.skipif(not REAL_FILE.is_file(), reason=f"{REAL_FILE} is not there")
def test_all_of_the_real_files(tmp_path):
    with tarfile.open(REAL_FILE) as archive:
        archive.extractall(tmp_path, filter="data")
    (root,) = tmp_path.rglob("RACE")
    passages, questions = set(), 0
    for split in ("train", "dev"):
        for example in read_race(root.parent, split):
            passages.add(example.id.partition("/")[0])
            questions += 1
            assert example.label in range(4)
            assert example.id.startswith(example.group)
    assert (len(passages), questions) == (800, 3011)
