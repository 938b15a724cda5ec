"""The report: its numbers worked by hand, its page in a real browser with the network off."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sparring.loop.errors import ConfigError, StoreError
from sparring.loop.formatting import significant
from sparring.loop.types import UpdateStep
from sparring.report import report_data, write_report
from sparring.report.heldout import reward_against_kl
from sparring.report.numbers import CHARACTERS, POINTS, measured
from sparring.report.plots import sections
from sparring.report.status import policy_now, status
from sparring.report.svg import look, panels, styled, svg
from sparring.report.text import interval, visible
from sparring.store.db import rows
from sparring.store.store import DuckStore
from tests.helpers.paths import ROOT
from tests.helpers.records import INFO, filled_store
from tests.helpers.report_store import (
    ALPHA,
    BETA,
    FROM,
    HOSTILE,
    LLM,
    NEW,
    OUTCOMES,
    PEOPLE,
    RULES,
    STEPS,
    checkpoint_id,
    pass_rate,
    report_store,
    win_rate,
)
from tests.helpers.spar import spar_many

pytestmark = pytest.mark.timeout(120)
PLOTS = {
    "pass-rate", "win-rate", "reward-kl", "length", "outcomes", "seconds", "loss", "accuracy", "rewards", "logps",
    "step-kl", "gradient", "agreement", "position-bias",
}  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> DuckStore:
    return report_store(tmp_path_factory.mktemp("report") / "preferences.duckdb", HOSTILE)


@pytest.fixture(scope="module")
def alpha(store: DuckStore) -> dict[str, Any]:
    run: dict[str, Any] = report_data(store, [ALPHA])["runs"][0]
    return run


@pytest.fixture(scope="module")
def page(store: DuckStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(store, [ALPHA], tmp_path_factory.mktemp("page") / "report.html")


def by_round(run: dict[str, Any], metric: str) -> dict[int, float]:
    return {row["round"]: row["value"] for row in run["metrics"] if row["metric"] == metric}


def test_results_by_round_and_the_policies_they_came_from(alpha: dict[str, Any]) -> None:
    rounds = range(7)
    assert by_round(alpha, "pass_rate") == {r: pytest.approx(pass_rate(ALPHA, r)) for r in rounds}
    assert by_round(alpha, "win_rate") == {r: pytest.approx(win_rate(ALPHA, r)) for r in rounds}
    assert by_round(alpha, "kl") == {r: 2.5 * r for r in rounds if r}
    assert {row["round"]: row["from_round"] for row in alpha["rounds"] if row["round"]} == FROM
    assert [row["accepted"] for row in alpha["rounds"]] == [r != 3 for r in rounds]
    assert [row["candidate_id"] for row in alpha["rounds"]] == [checkpoint_id(ALPHA, r) for r in rounds]
    assert [row["seconds"] for row in alpha["rounds"]] == [None, *(30.0 + r for r in range(1, 7))]
    outcomes = ("paired", "tie", "identical", "abstained", "failed")
    assert [alpha["rounds"][1][name] for name in outcomes] == [3, 1, 1, 1, 0]
    assert sum(alpha["rounds"][1][name] for name in outcomes) == alpha["rounds"][1]["prompts"] == len(OUTCOMES)


def test_kls_of_an_earlier_version_are_told_apart(tmp_path: Path) -> None:
    filled = filled_store(tmp_path / "a.duckdb")  # KLs of rounds 1 and 2, with a divergence per answer
    new = report_data(filled.store, [])
    assert new["runs"][0]["old_kl"] == [] and len(measured(new["runs"][0], "kl")) == 2
    assert "earlier versions" not in reward_against_kl(new).caption
    with filled.store.db.write() as con:
        con.execute(
            "DELETE FROM divergences WHERE completion_id IN (SELECT completion_id FROM completions WHERE round = 1)"
        )
        con.execute("UPDATE evaluations SET value = -0.74 WHERE round = 1 AND metric = 'kl'")
    mixed = report_data(filled.store, [])
    mixed["runs"][0]["config"]["sample"] = {"temperature": 0.7, "top_p": 0.95}
    caption = reward_against_kl(mixed).caption
    assert mixed["runs"][0]["old_kl"] == [{"round": 1}]
    assert "1 of 2 rounds" in caption and "not comparable" in caption
    assert "at temperature 1" in caption and "sampled at temperature 0.7, top_p 0.95" in caption


def test_steps_are_counted_over_all_rounds(alpha: dict[str, Any]) -> None:
    loss = [row for row in alpha["steps"] if row["metric"] == "loss"]
    assert [row["step"] for row in loss] == list(range(1, 6 * STEPS + 1))
    assert [row["round"] for row in loss] == [r for r in range(1, 7) for _ in range(STEPS)]
    # round 1: margin = 0.05 k + 0.02 ((7 k + 1) mod 5), loss = 0.6931 - margin / 4; k = 1, 2, 3: 0.11, 0.10, 0.19
    assert [row["value"] for row in loss[:3]] == pytest.approx([0.6656, 0.6681, 0.6456])
    # 12 points a round: the running mean takes 12 // 8 = 1 to each side
    assert loss[0]["smooth"] == pytest.approx((0.6656 + 0.6681) / 2)
    assert loss[1]["smooth"] == pytest.approx((0.6656 + 0.6681 + 0.6456) / 3)


def test_many_steps_become_few_points_that_keep_the_mean(tmp_path: Path) -> None:
    found = filled_store(tmp_path / "a.duckdb")
    long = [UpdateStep(f"long_{k}", "update_2", k, {"loss": float(k)}) for k in range(1, 1000)]
    found.store.add([long])
    points = [row for row in report_data(found.store, [])["runs"][0]["steps"] if row["metric"] == "loss"]
    assert len(points) <= POINTS + 2
    assert sum(row["n"] for row in points) == 2 + 1 + 999
    assert sum(row["value"] * row["n"] for row in points) == pytest.approx(0.75 + 0.5 + 0.5 + 999 * 1000 / 2)
    assert {row["round"] for row in points if row["step"] < 3} == {1}  # no point joins two rounds
    middle = next(row for row in points if row["n"] == 4)
    assert (middle["low"], middle["high"]) == pytest.approx((middle["value"] - 1.2, middle["value"] + 1.2))


def test_judges_by_hand_and_as_the_views_say(store: DuckStore, alpha: dict[str, Any]) -> None:
    (bias,) = alpha["position"]  # duel 0 of each of 6 rounds is won by what is shown first
    assert (bias["judge"], bias["duels"], bias["both_first"]["count"], bias["both_second"]["count"]) == (LLM, 36, 6, 0)
    found = {(row["judge"], row["other_judge"]): row for row in alpha["agreement"]}
    counts = {pair: (r["duels"], r["agreed"]["count"], r["opposed"]["count"]) for pair, r in found.items()}
    # a tie of the LLM is neither; where the rules abstain there is nothing to compare
    assert counts == {(LLM, PEOPLE): (12, 6, 6), (LLM, RULES): (30, 24, 0), (PEOPLE, RULES): (12, 6, 6)}
    agreed = found[LLM, PEOPLE]["agreed"]
    assert (agreed["low"], agreed["high"]) == pytest.approx((0.2538, 0.7462), abs=1e-4)  # Wilson, 6 of 12
    with store.db.read() as con:
        view = rows(con, "FROM judge_agreement")
        shares = rows(con, "FROM position_bias")
    assert {(r["judge"], r["other_judge"]): (r["duels"], r["agreement"], r["opposed"]) for r in view} == {
        pair: (r["duels"], r["agreed"]["value"], r["opposed"]["value"]) for pair, r in found.items()
    }
    assert [(r["duels"], r["both_first"], r["both_second"]) for r in shares] == [(36, pytest.approx(1 / 6), 0)]
    llm = next(row for row in alpha["judges"] if row["judge"] == LLM)
    assert (llm["judgements"], llm["calls"], llm["prompt_tokens"], llm["cost"]) == (72, 72, 7200, pytest.approx(0.72))
    rules = next(row for row in alpha["judges"] if row["judge"] == RULES)
    assert (rules["judgements"], rules["without_answer"], rules["calls"]) == (72, 12, None)


def test_where_a_run_stands(store: DuckStore, alpha: dict[str, Any]) -> None:
    awaiting = alpha["status"]
    assert (awaiting["state"], awaiting["rounds_done"], awaiting["rounds_wanted"]) == ("awaiting approval", 6, 6)
    assert "round 6" in awaiting["says"] and f"spar approve {ALPHA}" in awaiting["says"]
    assert alpha["policy"] == {"policy_id": checkpoint_id(ALPHA, 6), "round": 6}
    four = alpha | {"rounds": alpha["rounds"][:5], "decisions": []}
    assert (status(four)["state"], status(four)["says"]) == ("stopped", alpha["stops"][0]["message"])
    allowed = four | {"decisions": alpha["decisions"][:1]}  # what a person decides takes precedence over the rule
    assert (status(allowed)["state"], status(allowed)["says"]) == ("not finished", "round 5 has yet to start")
    turned = four | {"decisions": alpha["decisions"][:2]}
    assert (status(turned)["state"], status(turned)["says"]) == (
        "rolled back",
        "it continues from the policy of round 2",
    )
    assert policy_now(turned) == {"policy_id": checkpoint_id(ALPHA, 2), "round": 2}
    rejected = four | {"rounds": alpha["rounds"][:4], "config": {"rounds": 6}}
    assert (status(rejected)["state"], status(rejected)["rounds_done"]) == ("not finished", 3)
    assert policy_now(rejected) == {"policy_id": checkpoint_id(ALPHA, 2), "round": 2}
    half = alpha | {"rounds": [*alpha["rounds"][:6], alpha["rounds"][6] | {"accepted": None}]}
    assert (status(half)["state"], status(half)["says"]) == ("under way", "round 6 is not finished")
    assert policy_now(half) == {"policy_id": checkpoint_id(ALPHA, 5), "round": 5}
    beta, new = report_data(store, [BETA, NEW])["runs"]
    assert (beta["status"]["state"], new["status"]["state"]) == ("complete", "not finished")
    assert new["status"]["says"] == "round 0 has yet to measure the initial policy"


def test_pairs_are_of_every_round_and_cut_where_they_are_endless(store: DuckStore) -> None:
    pairs = report_data(store, [ALPHA], pairs=6)["pairs"]
    assert [pair["round"] for pair in pairs] == [1, 2, 3, 4, 5, 6]
    assert report_data(store, [ALPHA], pairs=0)["pairs"] == []
    everything = report_data(store, [ALPHA], pairs=1000)["pairs"]
    assert len(everything) == 18
    assert {pair["pair_id"] for pair in pairs} < {pair["pair_id"] for pair in everything}
    long = next(pair for pair in everything if pair["chosen_length"] == 1_000_000)
    assert len(long["chosen"]) == CHARACTERS
    assert {(pair["chosen_score"], pair["rejected_score"], pair["p_chosen"]) for pair in everything} == {(1, 0, 0.9)}


def test_several_runs_keep_the_order_asked_for(store: DuckStore) -> None:
    report = report_data(store, ["beta", "alpha", BETA])
    assert [run["run_id"] for run in report["runs"]] == [BETA, ALPHA]
    assert {pair["run_id"] for pair in report["pairs"]} == {ALPHA, BETA}
    assert by_round(report["runs"][0], "pass_rate")[4] == pytest.approx(0.5)
    assert report["runs"][0]["agreement"] == []
    with pytest.raises(StoreError, match="has no run gamma"):
        report_data(store, ["alpha", "gamma"])


def test_every_figure_is_drawn_or_says_why_not(store: DuckStore, tmp_path: Path) -> None:
    drawn = [plot for plots in sections(report_data(store, [ALPHA, BETA])).values() for plot in plots]
    assert {plot.id for plot in drawn if plot.svg} == PLOTS
    assert all(plot.svg.count("<path") > 10 for plot in drawn if plot.svg)
    assert "n = 160 answers" in next(plot.caption for plot in drawn if plot.id == "pass-rate")
    empty = [plot for plots in sections(report_data(store, [NEW])).values() for plot in plots]
    assert {plot.id for plot in empty} == PLOTS
    assert [plot.id for plot in empty if plot.svg or not plot.caption.endswith(".")] == []


def test_a_policy_gradient_has_ratios_and_no_pairs(store: DuckStore) -> None:
    report = report_data(store, [ALPHA])
    renamed = {"accuracy": "ratio", "reward_margin": "clip_share"}
    for run in report["runs"]:
        steps = [row | {"metric": renamed.get(row["metric"], row["metric"])} for row in run["steps"]]
        run["steps"] = [row for row in steps if row["metric"] not in ("chosen_reward", "rejected_reward")]
    ids = [plot.id for plot in sections(report)["Learning"] if plot.svg]
    assert ids == ["loss", "clipping", "step-kl", "gradient"]


def test_a_figure_is_the_same_twice_and_takes_any_label() -> None:
    def draw(id: str) -> str:
        with styled():
            figure, (axis,) = panels()
            axis.plot([1, 2], [3, 4], marker="o", label=visible("$x_{<&>}\x00"))
            figure.legend(loc="outside upper left")
            return svg(figure, id, 'a "b" <c> \x1b')

    assert draw("a") == draw("a")
    ids = [set(re.findall(r'\bid="([^"]+)"', draw(id))) for id in ("a", "b")]
    assert ids[0] and not ids[0] & ids[1]
    assert "$x_{&lt;&amp;&gt;}⟨U+0000⟩" in draw("a")
    assert "<style" not in draw("a") and "<metadata" not in draw("a")
    assert len({look(index) for index in range(49)}) == 49


def test_numbers_in_words() -> None:
    assert [significant(v) for v in (None, 3.0, 0.123456, 1e-5, 123456.0)] == ["-", "3", "0.1235", "1e-05", "123456"]
    assert interval({"value": None, "low": None, "high": None}) == "–"  # noqa: RUF001
    assert interval({"value": 0.625, "low": 0.47, "high": 0.758}, "percent") == "62.5\u00a0% [47.0, 75.8]"
    assert interval({"value": 2.5, "low": None, "high": None}) == "2.5"
    assert visible("a\r\nb\tc\x1b\x85") == "a\nb\tc⟨U+001B⟩⟨U+0085⟩"


@pytest.mark.slow
def test_the_page_is_the_same_twice_and_asks_for_nothing(store: DuckStore, page: Path, tmp_path: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert write_report(store, ["alpha"], tmp_path / "deep" / "again.html").read_text(encoding="utf-8") == text
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["again.html"]
    assert not re.search(r"<(script|img|iframe|object|embed|base|form)\b", text)
    assert re.findall(r'\b(?:src|href)="(?!#|data:,)[^"]*"', text) == []
    assert "default-src 'none'" in text
    assert len(text) < 1_000_000
    with pytest.raises(ConfigError, match="is a folder"):
        write_report(store, ["alpha"], tmp_path)


def test_a_run_of_one_step_and_a_reward_model(tmp_path: Path) -> None:
    small = filled_store(tmp_path / "small.duckdb").store
    assert "<svg" in write_report(small, [], tmp_path / "small.html").read_text()
    found = filled_store(tmp_path / "b.duckdb")
    with found.store.db.write() as con:
        con.execute("UPDATE runs SET kind = 'reward'")
        con.execute("DELETE FROM evaluations WHERE metric IN ('accepted', 'kl') OR round <> 1")
        con.execute("DELETE FROM rounds")
    text = write_report(found.store, ["hand"], tmp_path / "b.html").read_text()
    assert "trained" in text and "<td>pass_rate</td><td>75.0\u00a0% [65.0, 85.0]</td>" in text
    assert "Rounds and branches" not in text
    with found.store.db.write() as con:
        con.execute("UPDATE runs SET kind = 'evaluate'")
        con.execute("DELETE FROM updates")
    text = write_report(found.store, ["hand"], tmp_path / "c.html").read_text()
    assert "measured" in text and "<td>win_rate</td>" in text and "<svg" not in text


@pytest.mark.slow
def test_the_command(store: DuckStore, tmp_path: Path) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    path = store.db.path
    made, compared, as_json, unknown, a_folder, nowhere = spar_many(
        (folder, "report", "new", "--store", path),
        (folder, "report", "beta", "alpha", "--store", path, "--to", "x/both.html", "--pairs", 3),
        (folder, "report", "alpha", "--store", path, "--json", "--pairs", 2),
        (folder, "report", "gamma", "--store", path),
        (folder, "report", "--store", path, "--to", folder),
        (folder, "report"),
        cwd=folder,
    )
    assert (made.code, made.out) == (0, f"report-{NEW}.html\n")
    assert (compared.code, compared.out) == (0, "x/both.html\n")
    assert (folder / "x/both.html").read_text().count("<article") == 3
    assert as_json.code == 0 and as_json.err == ""
    assert json.loads(as_json.out) == report_data(store, ["alpha"], pairs=2)
    assert (unknown.code, a_folder.code, nowhere.code) == (1, 2, 1)
    assert "has no run gamma" in unknown.err and "is a folder" in a_folder.err and "there is no store" in nowhere.err
    assert sorted(file.name for file in folder.iterdir()) == [f"report-{NEW}.html", "x"]


@pytest.mark.slow
def test_the_commands_of_the_page_on_reports_work(tmp_path: Path) -> None:
    DuckStore(tmp_path / "preferences.duckdb").add([[INFO]])  # a run without a round: nothing to draw, so it is quick
    text = (ROOT / "docs/report.md").read_text()
    commands = [line.split()[1:] for block in re.findall(r"```\n(.*?)```", text, re.S) for line in block.splitlines()]
    assert len(commands) == 5
    assert [said.code for said in spar_many(*map(tuple, commands), cwd=tmp_path)] == [0] * 5
    assert (tmp_path / "reports/hand.html").exists()
    (python,) = re.findall(r"```python\n(.*?)```", text, re.S)
    with pytest.MonkeyPatch.context() as moved:
        moved.chdir(tmp_path)
        exec(python, {})
    assert (tmp_path / "report.html").exists()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no Chromium in the PATH: the page is not looked at in a browser")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as p:
        opened = p.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        yield opened
        opened.close()


LOOK = """() => {
  const boxes = [...document.querySelectorAll("figure[data-plot] svg")].map(svg => {
    const box = svg.getBoundingClientRect();
    const words = [...svg.querySelectorAll("text")].map(t => t.getBoundingClientRect());
    return {
      id: svg.closest("figure").dataset.plot, width: box.width, height: box.height,
      paths: svg.querySelectorAll("path, use").length, label: svg.getAttribute("aria-label"),
      outside: words.filter(w => w.left < box.left - 1 || w.right > box.right + 1
                              || w.top < box.top - 1 || w.bottom > box.bottom + 1).length,
      smallest: Math.min(...[...svg.querySelectorAll("text")].map(
        t => parseFloat(getComputedStyle(t).fontSize) * box.width / svg.viewBox.baseVal.width)),
    };
  });
  const ids = [...document.querySelectorAll("[id]")].map(e => e.id);
  const missing = [...document.querySelectorAll("svg *")].flatMap(e => [...e.attributes])
    .map(a => /(?:^#|url\\(#)([^)]+)/.exec(a.value)).filter(m => m && !document.getElementById(m[1]));
  return {
    boxes, ids: ids.length, different: new Set(ids).size, missing: missing.length, title: document.title,
    wide: document.documentElement.scrollWidth, high: document.documentElement.scrollHeight,
    strange: document.querySelectorAll("script, img, h1 ~ h1, article h1, svg:not(figure svg), article style").length,
    articles: document.querySelectorAll("article").length,
    texts: [...document.querySelectorAll("article .answers > div")].map(
      a => (a.querySelector("details > div") || a.querySelector(".text")).textContent),
  };
}"""


def seen(browser: Any, page: Path, width: int) -> dict[str, Any]:
    """The page as a browser without a network has it; everything that it asked for or complained of must be nothing."""
    said: list[str] = []
    context = browser.new_context(viewport={"width": width, "height": 900}, offline=True)
    context.route("**/*", lambda route: route.continue_() if route.request.url == page.as_uri() else route.abort())
    tab = context.new_page()
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.on("dialog", lambda dialog: said.append(dialog.message))
    tab.on("request", lambda request: said.append(request.url))
    tab.goto(page.as_uri())
    folded: dict[str, Any] = tab.evaluate(LOOK)
    tab.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true })")
    opened = tab.evaluate(LOOK)
    context.close()
    return folded | {"said": said, "wide_when_open": opened["wide"], "high_when_open": opened["high"]}


@pytest.mark.parametrize("width", [1280, 400])
def test_in_a_browser_every_plot_is_drawn_and_no_text_runs_or_breaks_the_page(
    browser: Any, store: DuckStore, page: Path, width: int
) -> None:
    found = seen(browser, page, width)
    assert found["said"] == [page.as_uri()]
    assert {box["id"] for box in found["boxes"]} == PLOTS and len(found["boxes"]) == len(PLOTS)
    for box in found["boxes"]:
        assert box["width"] > 300 and box["height"] > 200 and box["paths"] > 10, box
        assert box["outside"] == 0 and box["smallest"] > 8.5 and box["label"], box
    assert found["ids"] == found["different"] and found["missing"] == 0
    assert found["wide"] <= width and found["wide_when_open"] <= width
    assert (found["strange"], found["articles"], found["title"]) == (0, 12, f"{ALPHA} – sparring")  # noqa: RUF001
    pairs = report_data(store, [ALPHA])["pairs"]
    texts = [visible(pair[side]) or "(empty)" for pair in pairs for side in ("chosen", "rejected")]
    assert found["texts"] == texts
    assert found["high_when_open"] > found["high"] + 1000


def test_in_a_browser_several_runs_are_compared(browser: Any, store: DuckStore, tmp_path: Path) -> None:
    page = write_report(store, [ALPHA, BETA, NEW], tmp_path / "report.html")
    found = seen(browser, page, 400)
    assert found["said"] == [page.as_uri()]
    assert {box["id"] for box in found["boxes"]} == PLOTS
    assert all(box["outside"] == 0 and box["smallest"] > 8.5 for box in found["boxes"])
    assert found["wide"] <= 400 and found["wide_when_open"] <= 400
