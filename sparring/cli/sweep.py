"""`spar run CONFIG --sweep FILE`."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparring.cli.common import Format, say
from sparring.loop.errors import StepError

if TYPE_CHECKING:
    from sparring.sweeps.plan import Plan, Point


def run_sweep(
    config: Path, file: Path, overrides: Sequence[str], *, dry_run: bool, no_prefect: bool, format: Format
) -> None:
    """Play the runs of a sweep, and print how they compare. Raises StepError at the end when some failed."""
    from sparring.cli.comparison import print_comparison
    from sparring.sweeps.plan import plan_sweep

    plan = plan_sweep(config, file, overrides)
    missing = [point for point in plan.points if not plan.store.complete(point.run, point.config.rounds)]
    say(f"{file}: {len(plan.points)} runs in {plan.store.db.path}, {len(missing)} to play")
    failed = _play(plan, missing, no_prefect) if missing and not dry_run else {}
    print_comparison(_rows(plan), plan.axes, format)
    if failed:
        raise StepError(
            f"{len(failed)} of {len(plan.points)} runs failed; the same command plays what is missing\n"
            + "\n".join(f"  {name}: {why}" for name, why in failed.items())
        )


def _play(plan: "Plan", missing: "Sequence[Point]", no_prefect: bool) -> dict[str, str]:
    from sparring.flows.run.prefect_server import quiet_server
    from sparring.flows.supervise.guard import Guard
    from sparring.sweeps.play import play_apart, play_points

    def play(point: "Point") -> str | None:
        say(f"{missing.index(point) + 1} of {len(missing)}: {point.name}")
        why = play_apart(point, plan.store, no_prefect)
        if why is not None:
            say(f"{point.name} failed: {why}")
        return why

    with Guard(), ExitStack() as held:
        if not no_prefect:
            held.enter_context(quiet_server())  # one server for all runs
        return play_points(missing, plan.store, play)


def _rows(plan: "Plan") -> list[dict[str, Any]]:
    """One row per run, in the order of the file; unknown values are None."""
    from sparring.sweeps.comparison import COLUMNS, results

    by_run = results(plan.store, [point.run for point in plan.points])
    rows = []
    for point in plan.points:
        labels = {axis: point.labels.get(axis, "") for axis in plan.axes}
        values = by_run.get(point.run, {}) | {"run_id": point.run, "wanted": point.config.rounds}
        rows.append({"point": point.name, **labels, **{name: values.get(name) for name in COLUMNS[1:]}})
    return rows
