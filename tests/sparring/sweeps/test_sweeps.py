"""Sweeps: what their file says, what is refused before anything is played, and what the comparison is of."""

import re
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest

from sparring.loop.errors import ConfigError
from sparring.loop.types import Decision
from sparring.store.store import DuckStore
from sparring.sweeps.comparison import COLUMNS, results
from sparring.sweeps.plan import changed_by, plan_sweep
from sparring.sweeps.sweep_file import read_sweep
from tests.helpers.paths import ROOT
from tests.helpers.report_store import ALPHA, BETA, NEW, checkpoint_id, pass_rate, report_store, win_rate
from tests.helpers.sweeps import CONFIG, NAMES, planned, write

SHIPPED = sorted((ROOT / "examples" / "sweeps").glob("*.yaml"))


# -- the file


def test_points_are_named_in_the_order_of_the_file(tmp_path: Path) -> None:
    plan = planned(tmp_path)
    assert [point.name for point in plan.points] == NAMES
    assert [dict(point.labels) for point in plan.points[:3]] == [
        {},
        {"start": "copied", "loss": "dpo"},
        {"start": "copied", "loss": "kto"},
    ]
    assert [point.config.policy.model for point in plan.points] == ["./model", *["./copied"] * 2, *["run:sft"] * 2]
    assert [point.config.pair.kind for point in plan.points[1:3]] == ["best_worst", "threshold"]
    assert {point.config.store for point in plan.points} == {"preferences.duckdb"}
    assert [set(point.needs) for point in plan.points] == [set(), set(), set(), {"sft"}, {"sft"}]


def test_an_axis_of_a_key_has_its_values_in_the_names(tmp_path: Path) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text(
        "grid: {learn.lr: [1e-6, 0.5, null, true, a/b ö], sample.n: [2]}\npoints: {no gate!: {evaluate.gate: null}}"
    )
    drafts = read_sweep(file)
    assert [d.name for d in drafts] == [*(f"lr-{v}-n-2" for v in ("1e-6", "0.5", "null", "true", "a-b")), "no-gate"]
    assert [d.labels["learn.lr"] for d in drafts] == ["1e-6", "0.5", "null", "true", "a/b ö", ""]
    assert drafts[2].changes == {"learn.lr": None, "sample.n": 2}


def test_a_whole_section_replaces_and_its_keys_hold_beside_it() -> None:
    values = {"learn": {"loss": "ipo", "beta": 0.3}, "pair": {"kind": "ranked"}}
    changes = {"learn.lr": 1, "sample.n": 3, "learn": {"loss": "sft"}}
    wanted = {"learn": {"loss": "sft", "lr": 1}, "sample": {"n": 3}, "pair": {"kind": "ranked"}}
    assert changed_by(values, changes, Path("s")) == wanted
    assert values == {"learn": {"loss": "ipo", "beta": 0.3}, "pair": {"kind": "ranked"}}
    assert changes["learn"] == {"loss": "sft"}


def test_what_is_first_may_have_a_config_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "sweeps").mkdir()
    other = CONFIG.replace("n: 4", "n: 3").replace("name: tiny", "name: other\nstore: elsewhere.duckdb")
    (tmp_path / "sweeps" / "warm.yaml").write_text(other)
    file = write(tmp_path)
    inner = tmp_path / "sweeps" / "sweep.yaml"
    file.rename(inner)
    inner.write_text("first: {warm: {config: warm.yaml, seed: 4}}\ngrid: {seed: [5]}")
    with chdir(tmp_path):
        warm, point = plan_sweep(tmp_path / "loop.yaml", inner).points
    assert (warm.name, warm.config.seed, warm.config.sample.n) == ("warm", 4, 3)
    assert (point.name, point.config.seed, point.config.sample.n) == ("tiny-seed-5", 5, 4)
    assert warm.config.store == point.config.store == "preferences.duckdb"


def test_overrides_change_the_config_before_the_sweep_does(tmp_path: Path) -> None:
    file = write(tmp_path)
    with chdir(tmp_path):
        plan = plan_sweep(
            tmp_path / "loop.yaml", file, ["name=new", "learn.lr=0.5", "learn.loss=ipo", "store=x.duckdb"]
        )
    assert [point.name for point in plan.points][:2] == ["sft", "new-copied-dpo"]
    assert {point.config.learn.lr for point in plan.points} == {0.5}
    assert plan.points[1].config.learn.loss == "sigmoid"
    assert plan.store.db.path == tmp_path / "x.duckdb"


UNREADABLE = {
    "grid: [1]": "grid holds [1]; expected a mapping",
    "grids: {seed: [1]}": "unknown key 'grids' (did you mean 'grid'?)",
    "first: {sft: {seed: 1}}": "has no points",
    "grid: {seed: []}": "grid.seed is []; expected a list of values",
    "grid: {seed: {}}": "grid.seed is {}; expected a list of values",
    "grid: {seed: 3}": "grid.seed is 3; expected a list of values",
    "grid: {loss: {dpo: sigmoid}}": "grid.loss.dpo holds 'sigmoid'; expected a mapping",
    "grid: {sample.extra: [[{of: initial}]]}": "give each value a label",
    "points: {a: {store: x}}": "points.a changes store, which the sweep itself sets",
    "first: {a: {name: x}}": "first.a changes name, which the sweep itself sets",
    "grid: {a: {x: {seed: 1}}, b: {y: {rounds: 1}, z: {seed: 2}}}": "the axes a and b of grid both set seed",
    "grid: {kl: {x: {seed: 1}}}": "grid.kl: kl is a column of the comparison",
    "grid: {seed: [1": "is not YAML",
}


@pytest.mark.parametrize("text", UNREADABLE)
def test_a_file_that_means_nothing_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=re.escape(UNREADABLE[text])):
        read_sweep(file)


# -- refused before anything is played

REFUSED = {
    "grid: {seed: [1, 1]}": "have the name tiny-seed-1",
    "points: {a b: {seed: 1}, a-b: {seed: 2}}": "have the name tiny-a-b",
    "points: {a: {policy.model: run:sft}}": "has no played run 'sft'",
    "points: {a: {policy.model: run:tiny-b}, b: {}}": "tiny-a needs run:tiny-b, which is not played before it",
    "points: {a: {policy.model: run:tiny-a}}": "tiny-a needs run:tiny-a, which is not played before it",
    "points: {a: {judge: {kind: implicit, policy: run:x, reference: ./model}}}": "has no played run 'x'",
    "points: {a: {approve: true}}": "tiny-a: approve is true",
    "grid: {evaluate.pass_at: [0.5, 1]}": "tiny-pass_at-1 would be measured by different judges",
    "points: {a: {}, b: {evaluate.judge: {kind: rules, truncated: fail}}}": "tiny-b would be measured by different",
    "points: {a: {seed.x: 1}}": "seed.x: seed is a value, not a section",
    "points: {%s: {}}" % ("x" * 300): "expected 200 at most",
    "first: {a: {config: none.yaml}}\npoints: {b: {}}": "there is no config file",
}


@pytest.mark.parametrize("text", REFUSED)
def test_points_that_cannot_be_are_refused(tmp_path: Path, text: str) -> None:
    config = CONFIG.replace("rounds: 1", "rounds: 1\nseed: 0")
    with pytest.raises(ConfigError, match=re.escape(REFUSED[text])):
        planned(tmp_path, text, config)
    assert not list(tmp_path.glob("*.duckdb"))


def test_all_mistakes_are_said_at_once_and_each_only_once(tmp_path: Path) -> None:
    sweep = """
grid:
  loss: {dpo: {learn.loss: sigmoid}, xyz: {learn.loss: xyz}, group: {learn.loss: nca_group}}
  seed: [0, 1]
points: {lrr: {learn.lrr: 1}}
"""
    with pytest.raises(ConfigError) as refused:
        planned(tmp_path, sweep)
    said = str(refused.value)
    assert "tiny-xyz-seed-0, tiny-xyz-seed-1: there is no loss 'xyz'" in said
    assert "tiny-group-seed-0, tiny-group-seed-1: learn.loss 'nca_group' learns from single answers" in said
    assert "tiny-lrr: learn.lrr: unknown key (did you mean 'lr'?)" in said
    assert "tiny-dpo" not in said


# -- the shipped ones, and the page


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_a_shipped_sweep_is_valid(tmp_path: Path, file: Path) -> None:
    write(tmp_path)
    with chdir(tmp_path):
        plan = plan_sweep(tmp_path / "loop.yaml", file)
    labels = [tuple(point.labels.values()) for point in plan.points]
    assert len(set(labels)) == len(labels)
    kinds = {(c.learn.algorithm, c.learn.loss, c.pair.kind, c.judge.kind) for c in (p.config for p in plan.points)}
    dpo = ("preference", "sigmoid", "best_worst", "rules")
    if file.stem == "insights":
        assert len(plan.points) == 1 + 3 * 4 * 3
        pairs = {("preference", loss, "best_worst", "rules") for loss in ("sigmoid", "ipo", "kto", "cpo")}
        assert kinds == pairs | {("preference", "sft", "dataset", "rules")}
        assert sum("sft" in point.needs for point in plan.points) == 12
    elif file.stem == "rpo":
        assert len(plan.points) == 1 + 3 * 3 * 2
        assert kinds == {dpo, *(("preference", "rpo_nv_group", "group", judge) for judge in ("rules", "implicit"))}
        assert sum("rpo-dpo" in point.needs for point in plan.points) == 9
    else:
        assert file.stem == "dpo-against-ppo" and len(plan.points) == 6 * 2
        assert kinds == {dpo, ("ppo", "sigmoid", "group", "rules")}


def test_the_sweeps_of_the_page_are_valid_and_the_shipped_ones_named(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "sweeps.md").read_text()
    assert {f"`{file.name}`" for file in SHIPPED} <= set(re.findall(r"`[\w-]+\.yaml`", page))
    names = [
        [p.name for p in planned(tmp_path, block).points] for block in re.findall(r"```yaml\n(.*?)```", page, re.S)
    ]
    assert [len(each) for each in names] == [9, 6]
    assert names[1][0] == "sft" and names[1][-1] == "tiny-long"


# -- what the comparison says


def compared(store: DuckStore, run: str) -> dict[str, Any]:
    return results(store, [ALPHA, BETA, NEW])[run]


def test_the_comparison_is_of_the_policy_that_a_run_ended_with(tmp_path: Path) -> None:
    store = report_store(tmp_path / "s.duckdb")
    assert set(results(store, [ALPHA, BETA, NEW])) == {ALPHA, BETA}
    found = compared(store, ALPHA)
    assert set(found) == set(COLUMNS) - {"point", "wanted"}
    assert (found["rounds"], found["round"]) == (6, 6)
    assert found["pass_rate"] == pytest.approx(pass_rate(ALPHA, 6))
    assert found["win_rate"] == pytest.approx(win_rate(ALPHA, 6))
    assert found["win_low"] < found["win_rate"] < found["win_high"]
    assert (found["kl"], found["kl_low"], found["kl_high"]) == (15.0, 14.25, 15.75)
    assert (found["mean_tokens"], found["tokens_low"], found["tokens_high"]) == (58.0, 56.0, 60.0)
    assert (found["mean_score"], found["score_low"]) == (pytest.approx(0.85), pytest.approx(0.8))
    assert (found["pairs"], found["examples"]) == (18, None)
    assert found["seconds"] == pytest.approx(6 * 30 + 21)
    assert compared(store, BETA)["pass_rate"] == pytest.approx(pass_rate(BETA, 4))


def test_after_a_rejected_candidate_or_a_rollback_it_is_the_older_policy(tmp_path: Path) -> None:
    store = report_store(tmp_path / "s.duckdb")
    store.add([[Decision("decision_z", BETA, 4, 0, "rollback", checkpoint_id(BETA, 1), "", "ann")]])
    assert (compared(store, BETA)["rounds"], compared(store, BETA)["round"]) == (4, 1)
    assert compared(store, BETA)["win_rate"] == pytest.approx(win_rate(BETA, 1))
    with store.db.write() as con:
        for table in ("evaluations", "decisions"):
            con.execute(f"DELETE FROM {table} WHERE run_id = ? AND round > 3", [ALPHA])
    assert (compared(store, ALPHA)["rounds"], compared(store, ALPHA)["round"]) == (3, 2)  # 3 was rejected
    assert compared(store, ALPHA)["pass_rate"] == pytest.approx(pass_rate(ALPHA, 2))
    with store.db.write() as con:
        con.execute("DELETE FROM evaluations WHERE run_id = ? AND round > 0", [ALPHA])
    found = compared(store, ALPHA)
    assert (found["rounds"], found["round"], found["win_rate"] is not None, found["kl"]) == (0, 0, True, None)
