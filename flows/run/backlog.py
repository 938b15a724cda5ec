"""Let a judge score stored answers: a second opinion on a run, or a new judge over old rounds."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from typing import Literal

from sparring.flows.compose.checkpoints import stored_run
from sparring.flows.compose.judge_factory import check_eval_judge, judge_info
from sparring.flows.config import JudgeConfig
from sparring.flows.run.judge_trials import Show, opened, refuse_failing, unshown
from sparring.flows.supervise.guard import guarding
from sparring.flows.supervise.leaving import leave_if_asked
from sparring.flows.supervise.run_lock import lock_run
from sparring.loop.parts import Judge
from sparring.loop.round import ask
from sparring.loop.types import Answers, Judgement, Record, Split
from sparring.store.backlog import Unit, duel_units, prompts_of, units
from sparring.store.store import DuckStore

Which = Literal["train", "eval", "all"]


@dataclass(frozen=True)
class Labelled:
    """Counts of judgements of one round's answers by one policy."""

    run: str
    round: int
    split: Split
    policy_id: str
    rival_id: str | None  # whose answers held-out answers were compared with
    missing: int  # judgements that did not exist yet
    made: int
    silent: int  # of those made, the ones without an answer


def label_backlog(
    judge: JudgeConfig,
    store: str,
    run: str | None = None,
    *,
    split: Which = "all",
    round: int | None = None,
    show: Show = unshown,
    each: Callable[[Labelled], None] = lambda labelled: None,
) -> list[Labelled]:
    """Make the judgements that `judge` has not made of stored answers; one entry per round, split and policy.

    `run` is a run's name or id; None means every loop and every evaluation. A judge that compares gets pairs of a
    policy's answers to each train prompt, and its held-out answers with those of the rival that it was measured
    against. One round is in memory at a time, and rows are committed as they come, so the same call again makes only
    what is missing. `show` is called with every chunk, `each` with every entry. Raises ConfigError when the judge fails
    its canaries, StepError when it stops answering, StoreBusy when another process labels the same store with it.
    """
    if split != "train":
        check_eval_judge(judge)
    opened_store = DuckStore(store)
    run_id = None if run is None else stored_run(opened_store, run).id
    with opened(judge) as labeller:
        todo = (duel_units if labeller.compares else units)(opened_store.db, run_id)
        folder = opened_store.db.path.parent / "labelling" / labeller.name
        with ExitStack() as held:
            held.callback(lock_run(folder).release)
            guard = held.enter_context(guarding(folder / "error.txt"))
            held.enter_context(guard.limit("judge", timeout=None, stall=None))
            opened_store.add([[judge_info(judge, labeller)]])
            # once, and only when a judgement is missing
            check = cache(lambda: refuse_failing(judge, labeller, opened_store))
            labelled = []
            for unit in todo:
                if split in (unit.split, "all") and round in (unit.round, None):
                    labelled.append(_label(unit, labeller, opened_store, judge.max_abstain, check, show))
                    each(labelled[-1])
            return labelled


def _label(
    unit: Unit, judge: Judge, store: DuckStore, max_abstain: float, check: Callable[[], None], show: Show
) -> Labelled:
    count = _Count(f"{unit.run} round {unit.round} {unit.split}", check, show)
    prompts = prompts_of(store.db, unit)
    rival = None if unit.rival_id is None else Answers(unit.run, unit.round, unit.rival_id, prompts, unit.split)
    ask(
        judge,
        Answers(unit.run, unit.round, unit.policy_id, prompts, unit.split),
        rival,
        store,
        max_abstain,
        count.on_chunk,
    )
    return Labelled(
        unit.run, unit.round, unit.split, unit.policy_id, unit.rival_id, count.missing, count.made, count.silent
    )


class _Count:
    """A count of the judgements on their way into the store. Calls `check` before the first one is made."""

    def __init__(self, what: str, check: Callable[[], None], show: Show) -> None:
        self.what, self.check, self.show = what, check, show
        self.missing = self.made = self.silent = 0

    def on_chunk(self, step: str, total: int, chunks: Iterator[Sequence[Record]]) -> Iterator[Sequence[Record]]:
        self.missing = total
        if total:
            self.check()
        for chunk in chunks:
            yield chunk  # resumes when the store has committed it
            judgements = [r for r in chunk if isinstance(r, Judgement)]
            self.made += len(judgements)
            self.silent += sum(j.value is None for j in judgements)
            if total:
                self.show(self.what, self.made, total)
            leave_if_asked()
