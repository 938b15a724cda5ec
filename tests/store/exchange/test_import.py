"""Imports: every shape of file, by hand; once however often; nothing lost, and nothing learned that is measured."""

import gzip
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pytest
from pyarrow import parquet

from sparring.flows.config import JudgeConfig
from sparring.flows.config.reward import RewardConfig, RewardPairs
from sparring.flows.run.backlog import label_backlog
from sparring.flows.run.reward import prepare_reward
from sparring.loop.errors import ConfigError, DataError, SparError, StoreError
from sparring.loop.labelled_pairs import read_preferences
from sparring.loop.types import RunInfo
from sparring.store.db import rows
from sparring.store.exchange import Asked, Imported, Wanted, export, import_rows
from sparring.store.exchange.turns import transcript
from sparring.store.store import DuckStore
from tests.helpers.kept_store import KeptStore
from tests.helpers.records import checkpoint, completion, filled_store, prompt, round_of

ASKED = [{"role": "user", "content": "Name a bird."}]
TALK = [*ASKED, {"role": "assistant", "content": "A robin."}, {"role": "user", "content": "Another."}]


def turn(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def write(folder: Path, given: Sequence[Any], name: str = "rows.jsonl") -> str:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in given))
    return str(path)


@pytest.fixture(scope="session")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store without rows, to copy: making its tables takes longer than most of these tests."""
    path = tmp_path_factory.mktemp("empty") / "s.duckdb"
    DuckStore(path).ingest({})
    return path


@pytest.fixture(autouse=True)
def _new(empty: Path, tmp_path: Path) -> None:
    shutil.copy(empty, tmp_path / "s.duckdb")


def bring(folder: Path, given: Sequence[Any], **options: Any) -> tuple[KeptStore, Imported]:
    store = KeptStore(folder / "s.duckdb")
    return store, import_rows(store, Asked((write(folder, given),), **{"source": "mine", "licence": "MIT"} | options))


def ask(store: DuckStore, sql: str) -> list[dict[str, Any]]:
    with store.db.read() as con:
        return rows(con, sql)


def back(store: DuckStore, folder: Path, what: Any, **options: Any) -> list[dict[str, Any]]:
    to = folder / "back.jsonl"
    export(store, Wanted(what, str(to), **options))
    return [json.loads(line) for line in to.read_text().splitlines()]


def picked(found: Sequence[Mapping[str, Any]], *names: str) -> list[list[Any]]:
    return [[row[name] for name in names] for row in found]


HH = "\n\nHuman: Name a bird.\n\nAssistant: A robin.\n\nHuman: Another.\n\nAssistant:"
TRL = {"prompt": ASKED, "chosen": [turn("a wren")], "rejected": [turn("no")]}
PAIRS: dict[str, tuple[dict[str, Any], list[dict[str, str]]]] = {
    "texts": ({"prompt": "Name a bird.", "chosen": "a wren", "rejected": "no"}, ASKED),
    "trl": (TRL, ASKED),
    "json": ({k: json.dumps(v) for k, v in TRL.items()}, ASKED),
    "conversations": ({"chosen": [*TALK, turn("a wren")], "rejected": [*TALK, turn("no")]}, TALK),
    "ultrafeedback": (
        {"prompt": "Name a bird.", "messages": [*ASKED, turn("a wren")], "score_chosen": 8.5, "score_rejected": 2.0}
        | {"chosen": [*ASKED, turn("a wren")], "rejected": [*ASKED, turn("no")]},
        ASKED,
    ),
    "hh": ({"chosen": f"{HH} a wren", "rejected": f"{HH} no"}, TALK),
    "hh with a prompt": ({"prompt": HH, "chosen": "a wren", "rejected": "no"}, TALK),
    "axolotl": ({"messages": TALK, "chosen": turn("a wren"), "rejected": turn("no")}, TALK),
}


@pytest.mark.parametrize("name", PAIRS)
def test_pairs_of_every_form_are_one_pair(tmp_path: Path, name: str) -> None:
    row, asked = PAIRS[name]
    store, done = bring(tmp_path, [row])
    (pair,) = back(store, tmp_path, "pairs")
    assert [pair[k] for k in ("prompt", "chosen", "rejected", "p_chosen", "weight")] == [
        asked, [turn("a wren")], [turn("no")], 1.0, 1.0
    ]  # fmt: skip
    scores = [8.5, 2.0, 6.5] if name == "ultrafeedback" else [None, None, 0.0]
    assert [pair[k] for k in ("chosen_score", "rejected_score", "margin")] == scores
    assert (done.rows, done.pairs, done.prompts, done.completions, done.ties) == (1, 1, 1, 2, 0)
    kept = json.loads(ask(store, "SELECT fields FROM source_rows")[0]["fields"])
    assert kept == ({k: row[k] for k in ("prompt", "messages")} if name == "ultrafeedback" else {})


COMPARED: list[dict[str, Any]] = [
    {"prompt": "Name a bird.", "response_a": "a wren", "response_b": "no", "label": "a"},
    {"prompt": "Name a bird.", "response_a": "a wren", "response_b": "a robin", "label": "tie"},
    {"prompt": "Name a bird.", "response_a": "a wren", "response_b": "a robin", "label": "tie", "p_a": 0.625},
    {"prompt": "Say yes.", "response_a": "no", "response_b": "yes", "p_a": 0.25},
    {"prompt": "Say yes.", "response_a": "yes", "response_b": "yes", "label": "b"},
    {"prompt": "Say no.", "response_a": "no", "response_b": "No.", "label": "tie", "who": "ann"},
    {"prompt": "Go on.", "response_a": "on", "response_b": "on", "label": "a"},
]


def test_comparisons_keep_ties_and_answers_of_one_text_and_pair_neither(tmp_path: Path) -> None:
    store, done = bring(tmp_path, COMPARED)
    assert (done.rows, done.pairs, done.ties, done.identical, done.completions) == (7, 2, 3, 2, 10)
    assert sorted(picked(back(store, tmp_path, "pairs", text="plain"), "prompt", "chosen", "rejected", "p_chosen")) == [
        ["Name a bird.", "a wren", "no", 1.0],
        ["Say yes.", "yes", "no", 0.75],
    ]
    outcomes = ask(
        store,
        """SELECT messages ->> '$[0].content' AS prompt, outcome FROM outcomes JOIN prompts USING (prompt_id)
        ORDER BY prompt""",
    )
    assert picked(outcomes, "prompt", "outcome") == [
        ["Go on.", "identical"], ["Name a bird.", "paired"], ["Say no.", "tie"], ["Say yes.", "paired"]
    ]  # fmt: skip
    given = back(store, tmp_path, "comparisons", run="mine", text="plain")
    for row, found in zip(COMPARED, given, strict=True):
        whole = {
            "label": "b" if row.get("p_a") == 0.25 else "a",
            "p_a": {"a": 1.0, "b": 0.0, "tie": 0.5}.get(str(row.get("label"))),
        }
        assert {k: found[k] for k in (*row, "label", "p_a", "who")} == whole | {"who": None} | row
    assert ask(store, "SELECT count(*) AS n FROM duels WHERE answered") == [{"n": 6}]  # one was labelled twice


GROUPS: list[dict[str, Any]] = [
    {"instruction": "Name a bird.", "source": "uf", "completions": [
        {"response": "a wren", "overall_score": 8.0, "model": "m1"},
        {"response": "no", "overall_score": None, "model": "m2"}]},
    {"prompt": ASKED, "scores": [0.25, 0.5, None],
     "completions": [[turn("a wren")], [turn("a wren")], [turn("an owl")]]},
    {"prompt": "Say yes.", "completions": ["yes", "no"]},
]  # fmt: skip


def test_groups_keep_their_order_their_scores_and_what_else_is_said(tmp_path: Path) -> None:
    store, done = bring(tmp_path, GROUPS[:1], columns={"prompt": "instruction"})
    (group,) = back(store, tmp_path, "groups", text="plain")
    assert (group["completions"], group["scores"]) == (["a wren", "no"], [8.0, None])
    fields = json.loads(ask(store, "SELECT fields FROM source_rows")[0]["fields"])
    assert fields == {
        "source": "uf",
        "completions": [{"overall_score": 8.0, "model": "m1"}, {"overall_score": None, "model": "m2"}],
    }
    (tmp_path / "two").mkdir()
    store, done = bring(tmp_path / "two", GROUPS[1:])
    groups = {row["prompt"]: row for row in back(store, tmp_path, "groups", text="plain")}
    assert picked([groups["Name a bird."], groups["Say yes."]], "completions", "scores") == [
        [["a wren", "a wren", "an owl"], [0.25, 0.5, None]],
        [["yes", "no"], [None, None]],
    ]
    assert (done.pairs, done.labels, done.completions) == (0, 0, 5)
    assert ask(store, "FROM outcomes") == []  # nobody has decided anything


def test_labels_and_bare_answers(tmp_path: Path) -> None:
    given = [
        {"prompt": "Name a bird.", "completion": "a wren", "label": True},
        {"prompt": ASKED, "completion": [turn("no")], "label": 0},
        {"prompt": "Say yes.", "completion": "yes", "label": "true", "score": 0.75},
    ]
    store, done = bring(tmp_path, given)
    assert (done.labels, done.rows, done.pairs) == (3, 3, 0)
    assert picked(back(store, tmp_path, "labels", text="plain"), "prompt", "completion", "label") == [
        ["Name a bird.", "a wren", True], ["Name a bird.", "no", False], ["Say yes.", "yes", True]
    ]  # fmt: skip
    assert picked(ask(store, "SELECT outcome FROM outcomes"), "outcome") == [["paired"], ["paired"]]
    (tmp_path / "bare").mkdir()
    answers = [{"question": "Name a bird.", "answer": text} for text in ("a wren", "an owl", "a wren")]
    store, done = bring(tmp_path / "bare", answers, columns={"completion": "answer"}, origin="human")
    assert (done.rows, done.completions) == (3, 2)
    assert picked(
        ask(store, "SELECT DISTINCT origin, policy_id, len(token_ids) AS n FROM completions"), "origin", "n"
    ) == [["human", 0]]
    assert ask(store, "FROM judgements") == []


def test_two_ratings_of_an_answer_are_two_judgements(tmp_path: Path) -> None:
    store, _ = bring(tmp_path, [{"prompt": "Say yes.", "completion": "yes", "score": s} for s in (1.0, 1.0, 4.0)])
    assert picked(ask(store, "SELECT score, answers FROM scores"), "score", "answers") == [[2.0, 3]]


def test_a_second_time_nothing_is_new(tmp_path: Path) -> None:
    store, first = bring(tmp_path, COMPARED)
    store, again = bring(tmp_path, COMPARED)
    # a run, a judge, a file; 7 rows and judgements; 4 prompts and outcomes; 10 answers; 2 pairs
    assert (first.added, again.added) == (3 + 7 + 7 + 4 + 4 + 10 + 2, 0)
    assert again == type(first)(**{**vars(first), "added": 0})
    assert picked(ask(store, "SELECT judge, kind FROM judges"), "judge", "kind") == [["import:mine", "import"]]
    (source,) = ask(store, "SELECT * EXCLUDE (imported_at) FROM sources")
    assert [source[k] for k in ("source", "licence", "shape", "split", "rows", "refused")] == [
        "mine", "MIT", "comparisons", "train", 7, 0
    ]  # fmt: skip
    with pytest.raises(ConfigError, match=r"has a run 'mine' already .* --run mine-2"):
        bring(tmp_path, COMPARED[:3])
    assert bring(tmp_path, COMPARED[:3], run="mine-2")[1].rows == 3


class Breaks(KeptStore):
    """Cannot write the last of an import's tables."""

    def ingest(self, tables: Mapping[str, pa.Table]) -> int:
        if "outcomes" in tables:
            raise StoreError("the disk is full")
        return super().ingest(tables)


def test_an_import_that_broke_off_is_finished_by_the_same_command(tmp_path: Path) -> None:
    asked = Asked((write(tmp_path, COMPARED),), "mine", "MIT")
    broken = Breaks(tmp_path / "s.duckdb")
    with pytest.raises(StoreError, match="disk is full"):
        import_rows(broken, asked)
    broken.close()
    store = KeptStore(tmp_path / "s.duckdb")
    assert import_rows(store, asked).added == 4  # the outcomes
    assert ask(store, "SELECT count(*) AS n FROM pairs") == [{"n": 2}]


def test_what_learns_and_what_judges_take_it(tmp_path: Path) -> None:
    store, done = bring(tmp_path, [*COMPARED, {"prompt": "Count.", "response_a": "1", "response_b": "2", "label": "b"}])
    config = RewardConfig(name="rm", model="none", store=str(store.db.path), pairs=RewardPairs(run="mine", held_out=0))
    store.close()
    ready = prepare_reward(config)
    assert sorted(max(x.preference.p_a, 1 - x.preference.p_a) for x in ready.train) == [0.75, 1.0, 1.0]
    found = label_backlog(JudgeConfig(kind="rules", regex="^a "), str(store.db.path), "mine")
    assert [(each.split, each.missing, each.made) for each in found] == [("train", 12, 12)]
    assert done.run_id == found[0].run
    assert DuckStore(store.db.path).run() is None  # the latest loop is asked for, and there is none


BAD: dict[str, tuple[Any, str]] = {
    "no object": ([1], "is a JSON list, expected an object"),
    "no prompt": ({"chosen": "a", "rejected": "b"}, "has no prompt"),
    "blank prompt": ({"prompt": " ", "chosen": "a", "rejected": "b"}, "has no prompt"),
    "no answer": ({"prompt": "x", "chosen": "a", "rejected": None}, "has no text or conversation in rejected"),
    "not a text": ({"prompt": "x", "chosen": [{"role": "assistant"}], "rejected": "b"}, "conversation in chosen"),
    "user last": ({"chosen": ASKED, "rejected": ASKED}, "has a chosen that ends with a turn of user"),
    "apart": ({"chosen": [*TALK, turn("a")], "rejected": [*ASKED, turn("b")]}, "differ before their last turn"),
    "hh apart": ({"chosen": f"{HH} a", "rejected": "\n\nHuman: x\n\nAssistant: b"}, "differ before their last turn"),
    "number": (TRL | {"chosen_score": "high"}, "has 'high' in chosen_score, expected a number"),
    "p": (TRL | {"p_chosen": 0.25}, "has p_chosen 0.25, expected 0.5 to 1"),
    "half a character": (TRL | {"chosen": "\ud83d"}, "half of a surrogate pair"),
    "other prompt": (
        TRL | {"prompt": TALK, "chosen": [*ASKED, turn("a")], "rejected": [*ASKED, turn("b")]},
        "beginning",
    ),
}


def test_bad_rows_are_named_and_nothing_is_imported(tmp_path: Path) -> None:
    given = [TRL, *(row for row, _ in BAD.values())]
    with pytest.raises(
        DataError, match=f"{len(BAD)} rows cannot be read, and nothing was imported: .* row 2 is a JSON"
    ) as told:
        bring(tmp_path, given)
    assert "--refused FILE" in str(told.value)
    to = tmp_path / "refused.jsonl"
    store, done = bring(tmp_path, given, refused=str(to))
    assert (done.rows, done.refused) == (1, len(BAD))
    left = [json.loads(line) for line in to.read_text().splitlines()]
    assert [row["number"] for row in left] == list(range(2, len(given) + 1))
    assert [said for row, (_, said) in zip(left, BAD.values(), strict=True) if said not in row["why"]] == []
    assert [json.loads(row["row"]) for row in left] == [row for row, _ in BAD.values()]
    assert ask(store, "SELECT rows, refused FROM sources") == [{"rows": 1, "refused": len(BAD)}]


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "label": ({"label": "c"}, "has label 'c' and p_a None"),
    "p_a": ({"label": "a", "p_a": 1.5}, "has label 'a' and p_a 1.5"),
    "against": ({"label": "a", "p_a": 0.25}, "and both alike"),
    "undecided": ({"label": "a", "p_a": 0.5}, "and both alike"),
    "none": ({"label": None}, "has label None and p_a None"),
}


@pytest.mark.parametrize("name", WRONG)
def test_labels_that_say_nothing_are_refused(tmp_path: Path, name: str) -> None:
    wrong, said = WRONG[name]
    with pytest.raises(DataError, match="row 1 has label") as told:
        bring(tmp_path, [{"prompt": "x", "response_a": "a", "response_b": "b"} | wrong])
    assert said in str(told.value)


OPTIONS: dict[str, tuple[dict[str, Any], type[SparError], str]] = {
    "licence": ({"licence": " "}, ConfigError, "give both: --source NAME --licence TEXT"),
    "run": ({"run": "a b"}, ConfigError, "--run is 'a b'"),
    "column": ({"columns": {"chosn": "x"}}, ConfigError, r"'chosn' \(did you mean 'chosen'\?\)"),
    "absent": ({"columns": {"chosen": "best"}}, ConfigError, "chosen=best, and .* has prompt, chosen, rejected"),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_options_that_cannot_be_are_refused(tmp_path: Path, name: str) -> None:
    options, error, said = OPTIONS[name]
    with pytest.raises(error, match=said):
        bring(tmp_path, [TRL], **options)


def test_files_that_cannot_be_read_say_so(tmp_path: Path) -> None:
    store = DuckStore(tmp_path / "s.duckdb")
    (tmp_path / "a.txt").write_text("x")
    (tmp_path / "broken.jsonl").write_text('{"prompt": "x"}\n\n{"prompt":\n')
    (tmp_path / "empty.jsonl").write_text("\n")
    (tmp_path / "latin.jsonl").write_bytes('{"prompt": "é"}'.encode("latin-1"))
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 no")
    for name, said in {
        "a.txt": "is not one of .jsonl",
        "broken.jsonl": "line 3 is not JSON",
        "empty.jsonl": "has no rows",
        "latin.jsonl": "save it as UTF-8",
        "bad.parquet": "cannot be read as parquet",
    }.items():
        with pytest.raises(DataError, match=said):
            import_rows(store, Asked((str(tmp_path / name),), "mine", "MIT"))
    with pytest.raises(DataError, match="has the columns a, b; expected chosen and rejected, or response_a"):
        bring(tmp_path, [{"a": 1, "b": 2}])
    twice = write(tmp_path, [TRL]), write(tmp_path, [TRL], "same.jsonl")
    with pytest.raises(ConfigError, match="have the same content; give it once"):
        import_rows(store, Asked(twice, "mine", "MIT"))


def test_prompts_of_the_other_split_are_refused(tmp_path: Path) -> None:
    filled = filled_store(tmp_path / "s.duckdb")  # where "Name a fish." is held out
    fish = {"prompt": "name  a FISH!", "chosen": "a cod", "rejected": "no"}
    asked = Asked((write(tmp_path, [TRL, fish]),), "mine", "MIT")
    with pytest.raises(DataError, match=r"1 rows have a prompt that is in the store as one of split eval, .* row 2: "):
        import_rows(filled.store, asked)
    held = Asked((write(tmp_path, [fish], "held.jsonl"),), "held", "MIT", split="eval")
    assert import_rows(filled.store, held).pairs == 1
    assert back(filled.store, tmp_path, "pairs", run="held") == []
    assert len(back(filled.store, tmp_path, "pairs", run="held", split="eval")) == 1
    assert filled.store.labelled("held").num_rows == 0  # so no reward model learns from it
    bird = Asked((write(tmp_path, [TRL], "bird.jsonl"),), "bird", "MIT", split="eval")
    with pytest.raises(DataError, match="in the store as one of split train"):
        import_rows(filled.store, bird)


def test_what_a_reward_model_held_out_of_the_same_pairs_is_no_eval_prompt(tmp_path: Path) -> None:
    store = DuckStore(tmp_path / "s.duckdb")
    base, held = checkpoint("base", run="rm-1"), prompt("Name a bird.", "eval")
    answer = completion(round_of(0, base, base, [held]), held)
    store.add([[RunInfo("rm-1", "rm", 0, {}, "x", {}, "reward"), held, answer]])
    assert import_rows(store, Asked((write(tmp_path, [TRL]),), "mine", "MIT")).pairs == 1


STRANGE = ["\u0000\u001f\u2028\ud7ff", '\U0001f426 größe 鳥 \r\n\t\\" |<b>', "x" * 2_000_000, '[{"a": 1}]', ""]


def test_any_text_comes_back_as_it_was(tmp_path: Path) -> None:
    given = [
        {"prompt": f"{i} {text[:50]}.", "chosen": text, "rejected": f"not {text}"} for i, text in enumerate(STRANGE)
    ]
    store, _ = bring(tmp_path, given)
    for to in ("a.jsonl", "a.parquet"):
        export(store, Wanted("pairs", str(tmp_path / to), text="plain"))
    read = parquet.read_table(tmp_path / "a.parquet").to_pylist()
    assert picked(read, "prompt", "chosen", "rejected") == picked(given, "prompt", "chosen", "rejected")
    lines = (tmp_path / "a.jsonl").read_text().split("\n")[:-1]  # not splitlines: a text may have a line separator
    assert [json.loads(line) for line in lines] == read


def test_files_of_every_kind_are_read_alike(tmp_path: Path) -> None:
    given = [row for row in COMPARED if row.get("p_a") is None][:4]
    table = pa.Table.from_pylist(given)
    parquet.write_table(table.append_column("rank", pa.array([1.0, float("nan"), 2.0, None])), tmp_path / "a.parquet")
    with gzip.open(tmp_path / "a.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in given)
    (tmp_path / "a.csv").write_text(
        "prompt,response_a,response_b,label\n"
        + "".join(f'"{r["prompt"]}",{r["response_a"]},{r["response_b"]},{r["label"]}\n' for r in given)
    )
    datasets.Dataset(table).save_to_disk(tmp_path / "saved")
    store = KeptStore(tmp_path / "s.duckdb")
    seen = []
    for i, name in enumerate(("a.parquet", "a.jsonl.gz", "a.csv", "saved")):
        import_rows(store, Asked((str(tmp_path / name),), "mine", "MIT", f"run{i}"))
        found = back(store, tmp_path, "comparisons", run=f"run{i}", text="plain")
        seen.append(picked(found, "prompt", "response_a", "response_b", "label"))
    assert seen == [picked(given, "prompt", "response_a", "response_b", "label")] * 4
    said = "SELECT fields ->> 'rank' AS r FROM source_rows WHERE json_exists(fields, '$.rank') ORDER BY number"
    assert picked(ask(store, said), "r") == [["1.0"], [None], ["2.0"], [None]]  # NaN is no value in JSON


def test_an_exported_folder_is_imported_and_read_as_preferences(tmp_path: Path) -> None:
    store, _ = bring(tmp_path, [PAIRS["hh"][0], PAIRS["ultrafeedback"][0]])
    export(store, Wanted("pairs", str(tmp_path / "folder")))
    (tmp_path / "two").mkdir()
    other = KeptStore(tmp_path / "two" / "s.duckdb")
    assert import_rows(other, Asked((str(tmp_path / "folder"),), "mine", "MIT")).pairs == 2
    names = ("prompt", "chosen", "rejected", "p_chosen", "margin", "chosen_score", "rejected_score", "weight")
    assert picked(back(other, tmp_path, "pairs"), *names) == picked(back(store, tmp_path, "pairs"), *names)
    assert sorted(p.p_a in (0.0, 1.0) for p in read_preferences(str(tmp_path / "folder"))) == [True, True]


def test_the_licence_stands_on_the_card(tmp_path: Path) -> None:
    store, done = bring(tmp_path, [TRL], source="HH | mine", licence="CC BY-NC 4.0")
    export(store, Wanted("pairs", str(tmp_path / "one")))
    card = (tmp_path / "one" / "README.md").read_text()
    assert "\nlicense: cc-by-nc-4.0\n" in card
    assert "| HH \\| mine | CC BY-NC 4.0 | rows.jsonl | " in card
    assert f"| {done.run_id} | import | 0 | 1 |" in card
    (tmp_path / "more.jsonl").write_text(json.dumps(PAIRS["hh"][0]))
    import_rows(store, Asked((str(tmp_path / "more.jsonl"),), "other", "MIT"))
    export(store, Wanted("pairs", str(tmp_path / "both")))
    assert "\nlicense: other\n" in (tmp_path / "both" / "README.md").read_text()


def test_transcripts_are_taken_apart_at_their_speakers() -> None:
    assert transcript(f"{HH} a wren: yes\n\nno") == [*TALK, turn("a wren: yes\n\nno")]
    assert transcript("Human: hi\n\nAssistant:  two spaces ") == [
        {"role": "user", "content": "hi"},
        turn(" two spaces "),
    ]
    for text in (
        "no speaker",
        "a text. \n\nHuman: x\n\nAssistant: y",
        "\n\nAssistant: y\n\nHuman: x",
        "\n\nHuman: alone",
    ):
        assert transcript(text) == []
