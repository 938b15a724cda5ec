"""Have a judge judge what is in the store already: a second opinion on a run, or a new judge over old rounds."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

from sparring.flows.compose.judge_factory import check_eval_judge, judge_info
from sparring.flows.config import JudgeConfig
from sparring.flows.run.judge_trials import Show, opened, refuse_failing, unshown
from sparring.flows.supervise.run_lock import lock_run
from sparring.loop.errors import StoreError
from sparring.loop.parts import Judge
from sparring.loop.round import ask
from sparring.loop.types import Checkpoint, Judgement, Record, Round, Split
from sparring.store.backlog import Unit, duel_units, prompts_of, units
from sparring.store.store import DuckStore

Which = Literal["train", "eval", "all"]


@dataclass(frozen=True)
class Labelled:
    """What a judge was missing of one round's answers by one policy, and what became of that."""

    run: str
    round: int
    split: Split
    policy_id: str
    rival_id: str | None  # whom held-out answers were set against, by a judge that compares
    missing: int  # judgements that were still to be made
    made: int
    silent: int  # of those made, without an answer


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
    """Make the judgements that `judge` has not made of the answers in the store; one entry a round, split and policy.

    `run` is a run's name or id; None: every loop and every evaluation. A judge that compares gets the answers of a
    policy to a train prompt among each other, and its held-out answers beside those of the rival that it was measured
    against. One round is in memory at a time, and rows are committed as they come: the same call again makes only what
    is missing. `show` hears of every chunk, `each` of every entry. Raises ConfigError when the judge fails its
    canaries, StepError when it stops answering, StoreBusy when another process has it label the same store.
    """
    if split != "train":
        check_eval_judge(judge)
    opened_store = DuckStore(store)
    run_id = _run_id(opened_store, run)
    with opened(judge) as labeller:
        todo = (duel_units if labeller.compares else units)(opened_store.db, run_id)
        lock = lock_run(opened_store.db.path.parent / "labelling" / labeller.name)
        try:
            opened_store.add([[judge_info(judge, labeller)]])
            check = cache(
                lambda: refuse_failing(judge, labeller, opened_store)
            )  # once, and only if there is something to do
            labelled = []
            for unit in todo:
                if split in (unit.split, "all") and round in (unit.round, None):
                    labelled.append(_label(unit, labeller, opened_store, judge.max_abstain, check, show))
                    each(labelled[-1])
            return labelled
        finally:
            lock.release()


def _run_id(store: DuckStore, name: str | None) -> str | None:
    if name is None:
        return None
    info = store.run(name)
    if info is None:
        raise StoreError(f"{store.db.path} has no run {name!r}; see: spar sql 'SELECT run_id FROM runs'")
    return info.id


def _label(
    unit: Unit, judge: Judge, store: DuckStore, max_abstain: float, check: Callable[[], None], show: Show
) -> Labelled:
    count = _Count(f"{unit.run} round {unit.round} {unit.split}", check, show)
    prompts = prompts_of(store.db, unit)
    rival = _round(unit, unit.rival_id, prompts) if unit.rival_id is not None else None
    ask(judge, _round(unit, unit.policy_id, prompts), rival, store, max_abstain, count.on_chunk)
    return Labelled(
        unit.run, unit.round, unit.split, unit.policy_id, unit.rival_id, count.missing, count.made, count.silent
    )


def _round(unit: Unit, policy_id: str, prompts: tuple[str, ...]) -> Round:
    """The answers of that policy as the store finds them: by run, round, policy and prompts. No weights are needed."""
    policy = Checkpoint(policy_id, unit.run, "", None, "")
    return Round(unit.run, unit.round, policy, policy, policy, policy, prompts, unit.split)


class _Count:
    """Counts the judgements on their way into the store; calls `check` before the first is asked for."""

    def __init__(self, what: str, check: Callable[[], None], show: Show) -> None:
        self.what, self.check, self.show = what, check, show
        self.missing = self.made = self.silent = 0

    def on_chunk(self, step: str, total: int, chunks: Iterator[Sequence[Record]]) -> Iterator[Sequence[Record]]:
        self.missing = total
        if total:
            self.check()
        for chunk in chunks:
            yield chunk  # comes back when the store has committed it
            judgements = [r for r in chunk if isinstance(r, Judgement)]
            self.made += len(judgements)
            self.silent += sum(j.value is None for j in judgements)
            if total:
                self.show(self.what, self.made, total)
