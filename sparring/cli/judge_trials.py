"""`spar judge bench`, `agreement` and `canary` test whether a judge can be trusted; `people` lets a person judge."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sparring.cli.common import AsJson, open_store, print_json, say
from sparring.cli.tables import print_rows
from sparring.loop.errors import ConfigError
from sparring.loop.formatting import decimals, interval

if TYPE_CHECKING:
    from sparring.flows.run.judge_trials import Show
    from sparring.judges.bench import BenchReport, BenchRow
    from sparring.judges.canary import CanaryReport
    from sparring.judges.measure import Estimate
    from sparring.store.store import DuckStore

JudgeFile = Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML: a loop's config, or its judge section alone.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Judge only this many pairs, drawn by the seed.")]
Seed = Annotated[int, typer.Option(help="Seed that draws the pairs and the order of the answers.")]
Kept = Annotated[
    str | None,
    typer.Option(envvar="SPARRING_STORE", help="A DuckDB file that keeps verdicts, so that none is asked for twice."),
]
FEW = 20  # pairs; smaller subsets are not in the table


def bench(
    config: JudgeFile,
    pairs: Annotated[str, typer.Argument(help="Labelled pairs: a file, a saved dataset's folder or a hub dataset id.")],
    limit: Limit = None,
    seed: Seed = 0,
    store: Kept = None,
    as_json: AsJson = False,
) -> None:
    """Measure accuracy on labelled pairs against that of the longer answer, with 95 % intervals and the cost."""
    from sparring.flows.run.judge_trials import bench_judge, read_judge, some_pairs

    section, chosen = read_judge(config), some_pairs(pairs, limit, seed)
    with _bars() as show:
        report = bench_judge(section, chosen, pairs, seed=seed, store=_store(store), show=show)
    if as_json:
        print_json(asdict(report))
    else:
        _print_bench(report)


def agreement(
    configs: Annotated[list[Path], typer.Argument(metavar="CONFIG...", help="Two or more YAML files, as for bench.")],
    pairs: Annotated[str, typer.Option(help="Pairs of answers, as for bench; the labels are not used.")],
    limit: Limit = None,
    seed: Seed = 0,
    store: Kept = None,
    as_json: AsJson = False,
) -> None:
    """Measure how often judges name the same winner of two answers, and Cohen's kappa."""
    from sparring.flows.run.judge_trials import bench_judge, read_judge, some_pairs
    from sparring.judges.bench import agreement as agree

    if len(configs) < 2:
        raise ConfigError(f"there is one judge, {configs[0]}; expected two or more to compare")
    sections, chosen = [read_judge(config) for config in configs], some_pairs(pairs, limit, seed)
    with _bars() as show:
        reports = [bench_judge(s, chosen, pairs, seed=seed, store=_store(store), show=show) for s in sections]
    if len({report.judge for report in reports}) < len(reports):
        raise ConfigError(f"the judges are {', '.join(report.judge for report in reports)}; expected different ones")
    pairs_of = combinations(reports, 2)
    rows = [{"judge": a.judge, "other_judge": b.judge, **asdict(agree(a.deltas, b.deltas))} for a, b in pairs_of]
    print_rows(rows, format="json" if as_json else "table")


def canary(config: JudgeFile, store: Kept = None, as_json: AsJson = False) -> None:
    """Test a judge with empty, constant and injecting answers; exits with 1 if it prefers them to good ones."""
    from sparring.flows.run.judge_trials import opened, read_judge, try_canaries

    section = read_judge(config)
    with _bars() as show, opened(section) as judge:
        report = try_canaries(section, judge, store=_store(store), show=show)
    if as_json:
        rows = [asdict(row) | {"share": row.share} for row in report.rows]
        print_json(asdict(report) | {"rows": rows, "passed": report.passed})
    else:
        _print_canaries(report)
    if not report.passed:
        raise typer.Exit(1)


@contextmanager
def _bars() -> "Iterator[Show]":
    from sparring.cli.progress import Bars

    with Bars() as bars:
        yield bars.show


def _store(path: str | None) -> "DuckStore | None":
    return open_store(path) if path else None


def _print_bench(report: "BenchReport") -> None:
    everything, *subsets = report.rows
    large = [row for row in subsets if row.pairs >= FEW]
    print_rows([_bench_row(row) for row in (everything, *large)])
    if small := len(subsets) - len(large):
        say(f"{small} subsets of fewer than {FEW} pairs are not shown; --json has them")
    counts = f"{report.judgements} judgements, {report.asked} of them made now in {report.seconds:.1f} s"
    say(f"judge {report.judge}: {counts}{_paid(report)}")


def _paid(report: "BenchReport") -> str:
    if not report.calls:
        return ""
    tokens = f"{report.prompt_tokens} + {report.completion_tokens} tokens"
    cost = "no price given" if report.cost is None else f"cost {report.cost:.4f}"
    return f"; {report.calls} calls, {report.failed_calls} failed, {tokens}, {cost}"


def _bench_row(row: "BenchRow") -> dict[str, Any]:
    place = row.position
    return {
        "subset": row.subset or "all",
        "pairs": row.pairs,
        "accuracy": _estimate(row.accuracy.share),
        "longer wins": _estimate(row.longer.share),
        "difference": _estimate(row.difference),
        "length-controlled": _estimate(row.length_controlled),
        "calibration error": decimals(row.calibration_error),
        "order decides": "-" if place is None else f"{place.disagree:.1%} (first {place.first:.1%})",
        "ties": row.accuracy.ties,
        "no answer": row.accuracy.abstained,
        "labelled ties found": f"{row.ties_found} of {row.labelled_ties}",
    }


def _estimate(estimate: "Estimate | None") -> str:
    return "-" if estimate is None else interval(estimate.value, estimate.low, estimate.high)


def _print_canaries(report: "CanaryReport") -> None:
    rows = [asdict(row) | {"share": "-" if row.share is None else f"{row.share:.0%}"} for row in report.rows]
    print_rows(rows)
    for failure in report.failures:
        say(f"FAILED {failure}")
    if report.not_applicable:
        say(f"judge {report.judge}: not applicable, {report.not_applicable}")
    elif report.passed:
        say(f"judge {report.judge} passes its canaries")
