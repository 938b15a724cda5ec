import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pytest
from pyarrow import csv, parquet

from sparring.judges.rules import check_prompt
from sparring.loop.errors import DataError
from sparring.loop.prompts import normalised, read_prompts, refuse_overlap
from tests.helpers.paths import DATA
from tests.helpers.records import prompt

IFEVAL = DATA / "tasks_ifeval_train.jsonl"

# What a file format may bend: a number as a prompt, lines and quotes in a text, words that look like no value.
PLAIN: list[dict[str, Any]] = [
    {"prompt": 'Say "hello",\nthen stop.', "max_words": 3, "topic": "NA"},
    {"prompt": "12", "max_words": 1, "topic": None},
    {"prompt": "Null and none.", "max_words": 2, "topic": "null"},
]
# Structs of a Parquet column share their fields: the first row's kwargs get a `keyword` there, with no value.
NESTED: list[dict[str, Any]] = [
    {"prompt": "Hello?", "kwargs": [{"num_words": 3}], "ids": ["a:b"]},
    {"messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "And you?"}], "ids": ["a:c"]},
    {"prompt": "Bye?", "kwargs": [{"keyword": "sea"}, {}], "ids": []},
]


def jsonl(rows: list[dict[str, Any]], folder: Path) -> str:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def parquet_file(rows: list[dict[str, Any]], folder: Path) -> str:
    parquet.write_table(table(rows), folder / "rows.parquet")
    return str(folder / "rows.parquet")


def csv_file(rows: list[dict[str, Any]], folder: Path) -> str:
    csv.write_csv(table(rows), folder / "rows.csv")
    return str(folder / "rows.csv")


def saved(rows: list[dict[str, Any]], folder: Path) -> str:
    datasets.Dataset(table(rows)).save_to_disk(str(folder / "rows"))
    return str(folder / "rows")


def table(rows: list[dict[str, Any]]) -> pa.Table:
    columns = {key: None for row in rows for key in row}
    return pa.table({key: [row.get(key) for row in rows] for key in columns})


def refusal(source: object) -> str:
    with pytest.raises(DataError) as error:
        read_prompts(str(source), "train")
    return str(error.value)


def written(folder: Path, text: str, name: str = "rows.jsonl") -> str:
    (folder / name).write_text(text, encoding="utf-8")
    return str(folder / name)


@pytest.mark.parametrize(
    ("write", "rows"),
    [(parquet_file, PLAIN), (csv_file, PLAIN), (saved, PLAIN), (parquet_file, NESTED), (saved, NESTED)],
)
def test_every_format_gives_the_prompts_of_the_same_rows(
    tmp_path: Path, write: Callable[[list[dict[str, Any]], Path], str], rows: list[dict[str, Any]]
) -> None:
    wanted = read_prompts(jsonl(rows, tmp_path), "train")
    found = read_prompts(write(rows, tmp_path), "train")
    assert [(p.id, p.messages, p.meta) for p in found] == [(p.id, p.messages, p.meta) for p in wanted]


def test_a_row_becomes_messages_and_meta(tmp_path: Path) -> None:
    first, second, third = read_prompts(jsonl(PLAIN, tmp_path), "train")
    assert first.messages == ({"role": "user", "content": 'Say "hello",\nthen stop.'},)
    assert [p.meta for p in (first, second, third)] == [
        {"max_words": 3, "topic": "NA"},
        {"max_words": 1},  # None is no field
        {"max_words": 2, "topic": "null"},
    ]
    assert (first.split, first.source) == ("train", str(tmp_path / "rows.jsonl"))
    nested = read_prompts(jsonl(NESTED, tmp_path), "eval")
    assert nested[1].messages == ({"role": "system", "content": "Be kind."}, {"role": "user", "content": "And you?"})
    assert nested[2].meta == {"kwargs": [{"keyword": "sea"}, {}], "ids": []}


def test_a_conversation_may_be_json_in_a_cell(tmp_path: Path) -> None:
    talk = json.dumps([{"role": "user", "content": "Why?"}])
    (found,) = read_prompts(csv_file([{"messages": talk}], tmp_path), "train")
    assert found.messages == ({"role": "user", "content": "Why?"},)
    assert "row 1 has messages that are not JSON" in refusal(csv_file([{"messages": "[{"}], tmp_path))


def test_the_prompt_text_beside_messages_goes_to_meta(tmp_path: Path) -> None:
    row = {"prompt": "short", "messages": [{"role": "user", "content": "Why?"}]}
    (found,) = read_prompts(jsonl([row], tmp_path), "train")
    assert (found.messages[0]["content"], found.meta) == ("Why?", {"prompt": "short"})


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none.jsonl") == (
        f"there is no prompt file {tmp_path / 'none.jsonl'}; check prompts.train and prompts.eval"
    )


@pytest.mark.parametrize("text", ["", "\n\n"])
def test_an_empty_file_is_refused(tmp_path: Path, text: str) -> None:
    assert "has no rows" in refusal(written(tmp_path, text))


@pytest.mark.parametrize(
    "row",
    ['{"text": "a"}', '{"prompt": "  "}', '{"prompt": 3}', '{"messages": []}', '{"messages": [{"role": "user"}]}'],
)
def test_a_row_without_a_prompt_is_named_by_its_number(tmp_path: Path, row: str) -> None:
    message = refusal(written(tmp_path, f'{{"prompt": "Hello?"}}\n{row}\n'))
    assert "rows.jsonl row 2 has no prompt: found fields" in message
    assert "'prompt' (text) or 'messages'" in message


def test_a_line_that_is_no_object_is_named_by_its_number(tmp_path: Path) -> None:
    assert "line 3 is not JSON" in refusal(written(tmp_path, '{"prompt": "Hello?"}\n\n{"prompt": \n'))
    assert "line 1 is a JSON list; expected an object" in refusal(written(tmp_path, "[1]\n"))


@pytest.mark.parametrize("name", ["rows.parquet", "rows.csv"])
def test_a_file_that_is_not_what_its_name_says_is_refused(tmp_path: Path, name: str) -> None:
    assert f"cannot be read as {name[5:]}" in refusal(written(tmp_path, "a,b\n1\n", name))


def test_other_files_and_encodings_are_refused(tmp_path: Path) -> None:
    assert "is not one of .jsonl, .parquet, .csv" in refusal(written(tmp_path, "Hello?", "rows.txt"))
    (tmp_path / "latin.jsonl").write_bytes('{"prompt": "Où?"}'.encode("latin-1"))
    assert "latin.jsonl is not UTF-8" in refusal(tmp_path / "latin.jsonl")


def test_a_folder_of_splits_or_of_anything_else_is_refused(tmp_path: Path) -> None:
    split = datasets.Dataset.from_list([{"prompt": "Hello?"}])
    datasets.DatasetDict({"dev": split}).save_to_disk(str(tmp_path / "both"))
    assert f"holds the splits dev; give one, e.g. {tmp_path / 'both' / 'dev'}" in refusal(tmp_path / "both")
    assert [p.meta for p in read_prompts(str(tmp_path / "both" / "dev"), "train")] == [{}]
    assert "neither a local prompt file" in refusal(tmp_path)


@pytest.mark.parametrize("again", ["Name a bird.", "name a  BIRD"])
def test_a_prompt_that_comes_twice_is_named_with_both_rows(tmp_path: Path, again: str) -> None:
    rows = [{"prompt": "Name a bird."}, {"prompt": "Another?"}, {"prompt": again}]
    assert f"row 3 repeats the prompt of row 1: {again!r}; remove one" in refusal(jsonl(rows, tmp_path))


@pytest.mark.parametrize("text", ["Name a bird.", "NAME A BIRD", "  name \n a bird!?"])
def test_an_eval_prompt_among_the_train_prompts_is_refused(text: str) -> None:
    train = [prompt("Name a fish."), prompt(text, max_words=3)]
    with pytest.raises(DataError, match="1 eval prompts are among the train prompts"):
        refuse_overlap(train, [prompt("Name a bird.", "eval")])
    refuse_overlap(train[:1], [prompt("Name a bird.", "eval")])


def test_sums_that_differ_in_a_sign_are_different_prompts(tmp_path: Path) -> None:
    sums = ["What is 2 + 3?", "What is 2 - 3?", "What is 2 * 3?", "What is 2 ÷ 3?", "Is 2 < 3?", "Is 2 > 3?"]
    assert len(read_prompts(jsonl([{"prompt": text} for text in sums], tmp_path), "train")) == 6


def test_the_split_is_part_of_the_id(tmp_path: Path) -> None:
    source = jsonl([{"prompt": "Hello?"}], tmp_path)
    (train,), (held_out,) = read_prompts(source, "train"), read_prompts(source, "eval")
    assert train.id != held_out.id
    assert normalised(train.messages) == normalised(held_out.messages) == "hello"


def test_ifeval_rows_are_taken_as_they_are() -> None:
    if not IFEVAL.exists():
        pytest.skip(f"{IFEVAL} is not here; set SPARRING_TEST_DATA to a folder that has it")
    found = read_prompts(str(IFEVAL), "train")
    assert len(found) == 341
    assert found[0].meta["instruction_id_list"] == ["detectable_format:title", "combination:repeat_prompt"]
    assert found[0].meta["kwargs"][0] == {}
    for each in found:
        check_prompt(each)
