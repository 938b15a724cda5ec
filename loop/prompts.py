"""Prompts from JSONL, Parquet, CSV, or a Hugging Face dataset.

A row has `prompt` (text) or `messages` (a list of {role, content}). All other fields become `meta`.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sparring.loop.errors import DataError
from sparring.loop.types import Message, Prompt, Split

READERS = (".jsonl", ".parquet", ".csv")


def read_prompts(source: str | Sequence[Mapping[str, Any]], split: Split) -> list[Prompt]:
    """All prompts of a source, in order.

    `source` is a file (.jsonl, .parquet, .csv), a folder written by datasets' save_to_disk, a dataset id of the hub,
    `org/name` or `org/name:split`, or the rows themselves. Raises DataError for a missing or empty source, a row
    without a prompt, duplicates.
    """
    name, rows = (source, read_rows(source)) if isinstance(source, str) else (f"{split} prompts", source)
    prompts = [_prompt(row, f"{name} row {i}", name, split) for i, row in enumerate(rows, start=1)]
    if not prompts:
        raise DataError(f"{name} has no rows; expected at least one with a field 'prompt' or 'messages'")
    first: dict[str, int] = {}
    for number, prompt in enumerate(prompts, start=1):
        key = normalised(prompt.messages)
        if key in first:
            raise DataError(
                f"{name} row {number} repeats the prompt of row {first[key]}: {_short(prompt)}; remove one of them"
            )
        first[key] = number
    return prompts


def refuse_overlap(train: Sequence[Prompt], held_out: Sequence[Prompt]) -> None:
    """Raise DataError if an eval prompt is among the train prompts, ignoring case, spacing and punctuation."""
    seen = {normalised(p.messages): p for p in held_out}
    shared = [p for p in train if normalised(p.messages) in seen]
    if shared:
        raise DataError(
            f"{len(shared)} eval prompts are among the train prompts, the first: {_short(shared[0])}; remove them from "
            "prompts.train, or the evaluation measures memory"
        )


def normalised(messages: Sequence[Message]) -> str:
    """The words and numbers, with the signs before numbers: 2 + 3 and 2 - 3 are different questions."""
    return " ".join(
        re.findall(r"\w+|[-+*/\u00d7\u00f7<>=^%](?=\s*\d)", " ".join(m["content"] for m in messages).casefold())
    )


def _prompt(row: Mapping[str, Any], where: str, source: str, split: Split) -> Prompt:
    meta = {k: v for k, v in row.items() if k not in ("prompt", "messages")}
    if row.get("prompt") is not None and row.get("messages") is not None:
        meta["prompt"] = row["prompt"]
    return Prompt.make(messages_of(row, where), split, source, _plain(meta))


def messages_of(row: Mapping[str, Any], where: str) -> list[Message]:
    """The conversation of a row: its `messages`, or its `prompt` as a single user turn.

    Raises DataError for a row without either.
    """
    messages = row.get("messages")
    if messages is None and isinstance(row.get("prompt"), list):
        messages = row["prompt"]  # TRL's conversational prompts
    if isinstance(messages, str):  # CSV and Parquet keep a conversation as JSON
        try:
            messages = json.loads(messages)
        except json.JSONDecodeError as error:
            raise DataError(f"{where} has messages that are not JSON: {error}") from error
    if messages is None and isinstance(row.get("prompt"), str) and row["prompt"].strip():
        messages = [{"role": "user", "content": row["prompt"]}]
    well_formed = isinstance(messages, list) and all(
        isinstance(m, Mapping) and isinstance(m.get("role"), str) and isinstance(m.get("content"), str)
        for m in messages
    )
    if not messages or not well_formed:
        raise DataError(
            f"{where} has no prompt: found fields {sorted(row)}, expected 'prompt' (text) or 'messages' "
            "(a list of {role, content})"
        )
    return [{"role": m["role"], "content": m["content"]} for m in messages]


def _plain(meta: Mapping[str, Any]) -> dict[str, Any]:
    """Meta as JSON values, so that a prompt read back from the store is the same prompt.

    None stands for an absent field, also in nested values, because Parquet gives every row the fields of all rows.
    """
    plain: dict[str, Any] = json.loads(json.dumps(_present(meta), default=str))
    return plain


def _present(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _present(v) for k, v in value.items() if v is not None}
    return [_present(v) for v in value] if isinstance(value, list) else value


def read_rows(source: str) -> Iterator[Mapping[str, Any]]:
    """The rows of a file, of a dataset's folder (exported or saved), or of a hub dataset."""
    path = Path(source).expanduser()
    if path.suffix in READERS:
        if not path.exists():
            raise DataError(f"there is no prompt file {path.resolve()}; check prompts.train and prompts.eval")
        try:
            yield from _jsonl(path) if path.suffix == ".jsonl" else _arrow(path)
        except UnicodeDecodeError as error:
            raise DataError(f"{path} is not UTF-8 ({error}); save it as UTF-8") from error
    elif path.is_file():
        raise DataError(f"{path} is not one of {', '.join(READERS)}; convert it, or give a dataset id")
    elif shards := sorted(path.glob("data/*.parquet")):  # the layout of hub datasets and of `spar export`
        for shard in shards:
            yield from _arrow(shard)
    else:
        yield from _dataset(source, path)


def _jsonl(path: Path) -> Iterator[Mapping[str, Any]]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                try:
                    row = json.loads(line)
                except json.JSONDecodeError as error:
                    raise DataError(f"{path} line {number} is not JSON ({error}); expected one object") from error
                if not isinstance(row, dict):
                    raise DataError(f"{path} line {number} is a JSON {type(row).__name__}; expected an object")
                yield row


def _arrow(path: Path) -> Iterator[Mapping[str, Any]]:
    from pyarrow import ArrowException, csv, parquet, string

    # Quoted cells may hold line breaks. A prompt that looks like a number is text. An empty cell has no value.
    lines = csv.ParseOptions(newlines_in_values=True)
    text = {"prompt": string(), "messages": string()}
    cells = csv.ConvertOptions(column_types=text, null_values=[""], strings_can_be_null=True)
    try:
        table = parquet.read_table(path) if path.suffix == ".parquet" else csv.read_csv(path, None, lines, cells)
    except ArrowException as error:
        raise DataError(f"{path} cannot be read as {path.suffix[1:]}: {error}") from error
    yield from table.to_pylist()


def _dataset(source: str, path: Path) -> Iterator[Mapping[str, Any]]:
    import datasets

    name, _, split = source.partition(":")
    try:
        if path.is_dir():
            dataset = datasets.load_from_disk(str(path))
        else:
            dataset = datasets.load_dataset(name, split=split or "train")
    except (FileNotFoundError, ValueError, ConnectionError) as error:
        raise DataError(
            f"{source!r} is neither a local prompt file ({', '.join(READERS)}) nor a dataset to load: {error}"
        ) from error
    if isinstance(dataset, datasets.DatasetDict):
        raise DataError(f"{source} holds the splits {', '.join(dataset)}; give one, e.g. {path / next(iter(dataset))}")
    yield from dataset


def _short(prompt: Prompt) -> str:
    text = prompt.messages[-1]["content"]
    return repr(text if len(text) <= 80 else text[:77] + "...")
