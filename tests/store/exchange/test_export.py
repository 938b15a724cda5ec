"""Exports: the columns that trainers read, of a store made by hand; whole files or none; never the other split."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pytest
import yaml
from pyarrow import parquet

from sparring.loop.errors import ConfigError, SparError, StoreError
from sparring.loop.types import JudgeInfo, Judgement
from sparring.store.exchange import Exported, Wanted, export
from sparring.store.exchange import writing as files
from tests.helpers.kept_store import KeptStore
from tests.helpers.records import JUDGE, Filled, completion, filled_store, judgement, pair, prompt, round_of

BIRD, YES = "Name a bird.", "Say yes."


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filled]:
    """The run of two rounds, and two judges more: of single answers in round 1, and of pairs."""
    made = filled_store(tmp_path_factory.mktemp("export") / "s.duckdb")
    kept = KeptStore(made.store.db.path)
    made = replace(made, store=kept)
    robin, no = (completion(made.first, made.train[0], k) for k in (0, 1))
    yes, indeed = (completion(made.first, made.train[1], k) for k in (0, 1))

    def duel(first: Any, other: Any, order: int, value: float | None) -> Judgement:
        return Judgement(f"duel_{first.id}_{order}", "panel", first.id, other.id, "", "", order, value)

    made.store.add(
        [
            [
                judgement(robin, 0.5, "length"),
                judgement(no, 0.25, "length"),
                JudgeInfo("panel", "llm", {}),
                *(duel(robin, no, order, p) for order, p in ((0, 0.75), (1, 0.5))),
                *(duel(yes, indeed, order, p) for order, p in ((0, 1.0), (1, 0.0))),  # whoever is shown first
            ]
        ]
    )
    yield made
    kept.close()


def lines(filled: Filled, tmp_path: Path, what: Any, **options: Any) -> list[dict[str, Any]]:
    to = tmp_path / "out.jsonl"
    export(filled.store, Wanted(what, str(to), **options))
    return [json.loads(line) for line in to.read_text().splitlines()]


def turn(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


ASKED = [{"role": "user", "content": BIRD}]
PAIRS: dict[tuple[str, str], dict[str, Any]] = {
    ("trl", "chat"): {"prompt": ASKED, "chosen": [turn("a robin")], "rejected": [turn("no")]},
    ("openrlhf", "chat"): {"chosen": [*ASKED, turn("a robin")], "rejected": [*ASKED, turn("no")]},
    ("axolotl", "chat"): {"messages": ASKED, "chosen": turn("a robin"), "rejected": turn("no")},
    ("trl", "plain"): {"prompt": BIRD, "chosen": "a robin", "rejected": "no"},
}


@pytest.mark.parametrize("style", PAIRS, ids="-".join)
def test_pairs_have_the_columns_of_each_library(filled: Filled, tmp_path: Path, style: tuple[str, str]) -> None:
    rows = lines(filled, tmp_path, "pairs", run="hand", style=style[0], text=style[1])
    numbers = {"p_chosen": 1.0, "margin": 1.0, "weight": 1.0, "builder": "best_worst", "source": "by hand"}
    # the mean over the judges of single answers: 1 by rules and 0.5 by length, 0 and 0.25
    scores = {"chosen_score": 0.75, "rejected_score": 0.125}
    ids = {"pair_id": rows[0]["pair_id"], "run_id": filled.info.id, "round": 1, "prompt_id": filled.train[0].id}
    assert rows[0] == PAIRS[style] | scores | numbers | ids
    assert list(rows[0])[: len(PAIRS[style])] == list(PAIRS[style])
    assert [(row["round"], row["chosen_score"], row["rejected_score"]) for row in rows] == [
        (1, 0.75, 0.125),
        (2, 1.0, 0.5),
    ]


def test_groups_have_scores_beside_answers_and_those_of_each_judge(filled: Filled, tmp_path: Path) -> None:
    rows = lines(filled, tmp_path, "groups", text="plain")
    found = {(row["round"], row["prompt"]): row for row in rows}
    third = filled.train[2].messages[0]["content"]
    assert set(found) == {(1, BIRD), (1, YES), (1, third), (2, BIRD), (2, YES)}
    bird, yes = found[1, BIRD], found[1, YES]
    assert bird["completions"] == ["a robin", "no"]
    # rules say 1 and 0, length 0.5 and 0.25; of the panel the duel is 0.625 to 0.375
    assert bird["by_judge"] == [
        {"judge": "length", "scores": [0.5, 0.25]},
        {"judge": "panel", "scores": [0.625, 0.375]},
        {"judge": JUDGE, "scores": [1.0, 0.0]},
    ]
    assert bird["scores"] == [pytest.approx(2.125 / 3), pytest.approx(0.625 / 3)]
    assert yes["by_judge"] == [{"judge": "panel", "scores": [0.5, 0.5]}, {"judge": JUDGE, "scores": [0.5, 0.5]}]
    assert found[1, third]["scores"] == [1.0, None]  # no answer is no number
    assert bird["completion_ids"] == [completion(filled.first, filled.train[0], k).id for k in (0, 1)]
    (one,) = [r for r in lines(filled, tmp_path, "groups", judge="length") if r["scores"] != [None, None]]
    assert (one["scores"], one["prompt"]) == ([0.5, 0.25], ASKED)
    assert one["completions"] == [[turn("a robin")], [turn("no")]]


def test_labels_come_from_scores_or_from_labelled_answers(filled: Filled, tmp_path: Path) -> None:
    to = str(tmp_path / "labels.jsonl")
    done = export(filled.store, Wanted("labels", to, judge=JUDGE, at=0.75))
    rows = [json.loads(line) for line in Path(to).read_text().splitlines()]
    # Scores in round 1: 1, 0 / 0.5, 0.5 / 1 and no answer; in round 2: 1, 0.5 / 1, 1.
    assert (done.rows, done.left_out, sum(row["label"] for row in rows)) == (9, 1, 5)
    assert [r["completion"] for r in rows if r["prompt"] == ASKED and r["label"]] == [
        [turn("a robin")],
        [turn("a wren")],
    ]
    with pytest.raises(ConfigError, match=r"no labelled answers of any run; .*--at SCORE"):
        export(filled.store, Wanted("labels", to))
    openrlhf = lines(filled, tmp_path, "labels", judge=JUDGE, at=0.75, style="openrlhf")
    assert openrlhf[0]["completion"][0]["role"] == "user"
    assert "prompt" not in openrlhf[0]


def test_comparisons_hold_ties_and_both_orders(filled: Filled, tmp_path: Path) -> None:
    rows = lines(filled, tmp_path, "comparisons")
    assert [(r["response_a"], r["response_b"], r["p_a"], r["label"], r["judge"]) for r in rows] == [
        ("a robin", "no", 0.625, "a", "panel"),
        ("yes", "yes indeed", 0.5, "tie", "panel"),
    ]


def test_prompts_of_one_split_never_stand_beside_the_other(filled: Filled, tmp_path: Path) -> None:
    held_out = {p.messages[0]["content"] for p in filled.held_out}
    at: dict[str, Any] = {"groups": {}, "labels": {"at": 0.5}}
    for what, options in at.items():
        train = {row["prompt"][0]["content"] for row in lines(filled, tmp_path, what, **options)}
        measured = {row["prompt"][0]["content"] for row in lines(filled, tmp_path, what, split="eval", **options)}
        assert train == {p.messages[0]["content"] for p in filled.train}
        assert measured == held_out
    sly = filled_store(tmp_path / "sly.duckdb")  # a pair of a held-out prompt, which nothing here would make
    good, bad = (completion(round_of(1, sly.initial, sly.initial, sly.held_out), sly.held_out[0], k) for k in (7, 8))
    sly.store.add([[good, bad, pair(sly.first, good, bad)]])
    assert len(lines(sly, tmp_path, "pairs")) == 2
    assert len(lines(sly, tmp_path, "pairs", split="eval")) == 1


def test_every_form_opens_as_a_dataset(filled: Filled, tmp_path: Path) -> None:
    cache = str(tmp_path / "cache")
    for to in ("pairs.parquet", "pairs.jsonl", "folder"):
        for _ in range(2):  # the second writes over the first
            assert export(filled.store, Wanted("pairs", str(tmp_path / to), "hand")).rows == 2
    read = [
        datasets.load_dataset("parquet", data_files=str(tmp_path / "pairs.parquet"), split="train", cache_dir=cache),
        datasets.load_dataset("json", data_files=str(tmp_path / "pairs.jsonl"), split="train", cache_dir=cache),
        datasets.load_dataset(str(tmp_path / "folder"), split="train", cache_dir=cache),
    ]
    assert read[0].to_list() == read[1].to_list() == read[2].to_list()
    assert [row["chosen"] for row in read[2]] == [[turn("a robin")], [turn("a wren")]]
    assert {path.name for path in tmp_path.iterdir()} == {"pairs.parquet", "pairs.jsonl", "folder", "cache"}
    folder = {str(path.relative_to(tmp_path / "folder")) for path in (tmp_path / "folder").rglob("*.*")}
    assert folder == {"README.md", "data/train-00000-of-00001.parquet"}


def test_the_card_counts_what_is_there(filled: Filled, tmp_path: Path) -> None:
    export(filled.store, Wanted("groups", str(tmp_path / "g")))
    text = (tmp_path / "g" / "README.md").read_text()
    front = yaml.safe_load(text.split("---\n")[1])
    assert front["configs"][0]["data_files"] == [{"split": "train", "path": "data/train-*"}]
    assert (front["license"], front["size_categories"]) == ("unknown", ["n<1K"])
    for name, n in {"rows": 5, "prompts": 3, "runs": 1, "rounds": 2, "judges": 3}.items():
        assert f"| {name} | {n} |" in text
    assert f"| {filled.info.id} | self-play | 1, 2 | 5 |" in text
    assert "| by hand | 5 |" in text
    assert "| panel | llm | 4 |" in text
    assert "has the licence of its prompts and of the models" in text


def test_shards_are_numbered_and_in_order(filled: Filled, tmp_path: Path) -> None:
    schema = parquet.read_schema(_exported(filled, tmp_path / "x.parquet"))
    rows = parquet.read_table(tmp_path / "x.parquet")
    shards = files.Shards(tmp_path / "many", "train", schema, size=3)
    for _ in range(4):
        shards.write_table(rows)  # two rows each
    shards.close()
    names = sorted((tmp_path / "many" / "data").iterdir())
    assert [path.name for path in names] == [f"train-{i:05d}-of-00003.parquet" for i in range(3)]
    assert [parquet.read_metadata(path).num_rows for path in names] == [3, 3, 2]
    read = datasets.load_dataset(str(tmp_path / "many"), split="train", cache_dir=str(tmp_path / "cache"))
    assert read["pair_id"] == rows["pair_id"].to_pylist() * 4


def _exported(filled: Filled, to: Path) -> Path:
    export(filled.store, Wanted("pairs", str(to)))
    return to


def test_nothing_to_export_is_a_file_with_columns(filled: Filled, tmp_path: Path) -> None:
    done = export(filled.store, Wanted("pairs", str(tmp_path / "none"), split="eval"))
    assert done.rows == 0  # `datasets` opens no split without rows
    found = parquet.read_table(tmp_path / "none" / "data" / "eval-00000-of-00001.parquet")
    assert (found.num_rows, found.column_names[:3]) == (0, ["prompt", "chosen", "rejected"])


def test_a_folder_of_something_else_is_spared(filled: Filled, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "README.md").write_text("my notes")
    export(filled.store, Wanted("pairs", str(tmp_path / "ours")))
    (tmp_path / "ours" / ".git").mkdir()  # a clone of a dataset on the hub
    (tmp_path / "file").write_text("precious")
    for to, said in (("mine", "other content"), ("ours", "other content"), ("file", "is a file")):
        with pytest.raises(ConfigError, match=said):
            export(filled.store, Wanted("pairs", str(tmp_path / to)))
    assert (mine / "README.md").read_text() == "my notes"
    assert (tmp_path / "ours" / "data").is_dir()


def test_an_export_that_fails_leaves_what_was_there(filled: Filled, tmp_path: Path) -> None:
    chat = prompt("unused")
    turns = ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "Name a bird, again."})
    asked = type(chat).make(turns, "train", "by hand", {})
    talk = filled_store(tmp_path / "talk.duckdb")
    good, bad = (completion(talk.second, asked, k, text=text) for k, text in enumerate(("a wren", "none")))
    talk.store.add([[asked, good, bad, pair(talk.second, good, bad)]])
    for to in ("pairs.jsonl", "folder"):
        export(talk.store, Wanted("pairs", str(tmp_path / to)))
        before = _bytes(tmp_path / to)
        with pytest.raises(ConfigError, match=f"{asked.id} is a conversation, .* leave out --text plain"):
            export(talk.store, Wanted("pairs", str(tmp_path / to), text="plain"))
        assert _bytes(tmp_path / to) == before
        assert not (tmp_path / f"{to}.partial").exists()
    (tmp_path / "folder.partial").mkdir()  # of an export that was killed
    (tmp_path / "folder.partial" / "half").write_text("half")
    assert export(talk.store, Wanted("pairs", str(tmp_path / "folder"))).rows == 3
    assert not (tmp_path / "folder.partial").exists()


def _bytes(path: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in ([path] if path.is_file() else path.rglob("*.*"))}


REFUSED: list[tuple[dict[str, Any], type[SparError], str]] = [
    ({"to": "a.xlsx"}, ConfigError, "cannot write a .xlsx file; name it .parquet or .jsonl"),
    ({"run": "none"}, StoreError, "has no run 'none'"),
    (
        {"what": "groups", "style": "axolotl"},
        ConfigError,
        "no groups in the style axolotl as chat; give --style trl, or --",
    ),
    ({"what": "labels", "style": "axolotl"}, ConfigError, "give --style trl or openrlhf, or --text plain"),
    ({"at": 0.5}, ConfigError, "--at 0.5 .* labels only"),
    ({"judge": "rules"}, ConfigError, "--judge .* groups, comparisons, and labels from scores"),
]


@pytest.mark.parametrize(("options", "error", "said"), REFUSED, ids=range(len(REFUSED)))
def test_what_cannot_be_is_refused(
    filled: Filled, tmp_path: Path, options: dict[str, Any], error: type[SparError], said: str
) -> None:
    to = str(tmp_path / options.pop("to", "a.jsonl"))
    with pytest.raises(error, match=said):
        export(filled.store, Wanted(options.pop("what", "pairs"), to, **options))
    assert not list(tmp_path.iterdir())


def test_what_was_exported_is_counted(filled: Filled, tmp_path: Path) -> None:
    done: Exported = export(filled.store, Wanted("pairs", str(tmp_path / "a.jsonl")))
    assert (done.rows, len(done.prompts), done.units) == (2, 1, {(filled.info.id, 1): 1, (filled.info.id, 2): 1})
