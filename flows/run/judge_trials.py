"""Judges outside a loop: measured on labelled pairs, compared with each other, tested with canaries."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from sparring.flows.compose.judge_factory import every, judge_info, make_judge, oracle_of
from sparring.flows.config import Config, JudgeConfig, parse_model, read_yaml
from sparring.flows.supervise.environment import own_environment
from sparring.judges import JUDGES
from sparring.judges.active import ActiveJudge
from sparring.judges.bench import BenchReport, bench, cases_of
from sparring.judges.canary import CanaryReport, canaries, read_bank, run_canaries
from sparring.judges.cases import Case, Remember, Said, groups_of
from sparring.judges.self_rewarding import SelfJudge
from sparring.loop.errors import ConfigError
from sparring.loop.labelled_pairs import Preference, read_preferences
from sparring.loop.parts import Judge
from sparring.loop.types import JudgeCall, Judgement, Record, digest
from sparring.store.db import rows
from sparring.store.records import to_record
from sparring.store.store import DuckStore

Show = Callable[[str, int, int], None]  # (what, done, of how many)


def unshown(what: str, done: int, total: int) -> None:
    pass


def read_judge(path: Path) -> JudgeConfig:
    """The judge of a YAML file: the `judge` section of a loop's config, or the section alone. Raises ConfigError."""
    values = read_yaml(path)
    if "kind" in values:
        return parse_model(JudgeConfig, values, str(path))
    if "judge" not in values:
        raise ConfigError(
            f"{path} has the keys {', '.join(values)}; expected `kind:`, or a loop's config with `judge:`"
        )
    return parse_model(Config, values, str(path)).judge


def some_pairs(source: str, limit: int | None, seed: int) -> list[Preference]:
    """The labelled pairs of a source in its order, or `limit` of them, drawn by a hash of the seed."""
    pairs = read_preferences(source)
    drawn = {p.id for p in sorted(pairs, key=lambda p: digest([seed, p.id]))[:limit]}
    return [p for p in pairs if p.id in drawn]


@contextmanager
def opened(section: JudgeConfig) -> Iterator[Judge]:
    """The judge of a section; its engine, if any, is closed at the end. Raises EnvironmentProblem."""
    own_environment()
    judge = make_judge(section)
    try:
        yield judge
    finally:
        close_judge(judge)


def close_judge(judge: Judge) -> None:
    if close := getattr(judge, "close", None):
        close()


def refuse_failing(section: JudgeConfig, judge: Judge, store: DuckStore) -> None:
    """Raise ConfigError when a model as judge fails its canaries. Each store asks a judge for them once."""
    if section.canaries == "skip":
        return
    section, judge = _on_trial(section, judge)
    is_model = any(JUDGES[each.kind].traits.canaries for each in every(section))
    if not is_model or section.canaries == "skip":
        return
    report = try_canaries(section, judge, store=store)
    if not report.passed:
        problems = "\n".join(f"  {failure}" for failure in report.failures)
        raise ConfigError(
            f"judge {judge.name} fails its canaries, so a policy would learn to exploit it:\n{problems}\n"
            "see: spar judge canary CONFIG. Choose a better judge or prompt, or accept it with judge.canaries: skip"
        )


def _on_trial(section: JudgeConfig, judge: Judge) -> tuple[JudgeConfig, Judge]:
    """The judge that must pass the canaries: an active judge's oracle, or the initial policy that judges itself.

    Later policies are not tested, because another judge measures them.
    """
    if isinstance(judge, ActiveJudge):
        return oracle_of(section), judge.oracle
    return (section, judge.start) if isinstance(judge, SelfJudge) else (section, judge)


def bench_judge(
    section: JudgeConfig,
    pairs: Sequence[Preference],
    source: str,
    *,
    seed: int = 0,
    store: DuckStore | None = None,
    show: Show = unshown,
) -> BenchReport:
    """A judge's report on labelled pairs, see judges.bench. A store keeps verdicts, so that none is asked for twice.

    Answers are stored under a run named `bench-` and the name of the source, so that all judges share the same rows.
    """
    run = f"bench-{Path(source.partition(':')[0]).stem}"
    with opened(section) as judge:
        cases = cases_of(pairs, run, seed)
        known, remember = _memory(section, judge, cases, store, show)
        return bench(judge, pairs, seed=seed, run=run, known=known, remember=remember)


def try_canaries(
    section: JudgeConfig, judge: Judge, *, store: DuckStore | None = None, show: Show = unshown
) -> CanaryReport:
    """A judge's report on canaries, see judges.canary. A store is used as by `bench_judge`."""
    section, judge = _on_trial(section, judge)
    known, remember = _memory(section, judge, [canary.case for canary in canaries(read_bank())], store, show)
    return run_canaries(judge, known=known, remember=remember)


def _memory(
    section: JudgeConfig, judge: Judge, cases: Sequence[Case], store: DuckStore | None, show: Show
) -> tuple[list[Said], Remember]:
    """The stored verdicts on these answers, and a `remember` that adds new ones and shows progress."""
    known = _stored(store, judge.name, {c.id for case in cases for c in case.shown}) if store else []
    if store:
        store.add([[judge_info(section, judge)]])
    open_still = groups_of(judge, cases, [r for r in known if isinstance(r, Judgement)])
    total, done = sum(map(judge.missing, open_still)), 0

    def remember(chunk: Sequence[Record]) -> None:
        nonlocal done
        if store:
            store.add([chunk])
        done += sum(isinstance(record, Judgement) for record in chunk)
        show(f"{judge.name} judging", done, max(done, total))

    return known, remember


def _stored(store: DuckStore, judge: str, completion_ids: set[str]) -> list[Said]:
    """A judge's stored judgements of these completions, and the calls that they took."""
    if not store.db.path.exists():
        return []
    judged = store.judged(judge, sorted(completion_ids))
    with store.db.read() as con:
        con.register("wanted", pa.table({"judgement_id": pa.array([j.id for j in judged], pa.string())}))
        calls = rows(con, "SELECT c.* FROM judge_calls c SEMI JOIN wanted USING (judgement_id)")
    return [*judged, *(to_record(JudgeCall, row) for row in calls)]
