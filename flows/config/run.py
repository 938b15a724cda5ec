"""The sections on how a run is operated; they shape no row."""

from pydantic import Field

from sparring.flows.config.base import Named
from sparring.loop.section import Section


class Stop(Section):
    """After which round a run stops, and says why; a rule without a number is off. See loop/stopping.py."""

    win_rate: float | None = Field(None, ge=0, le=1, description="stop when the whole win-rate interval is below this")
    kl: float | None = Field(
        None,
        gt=0,
        description="stop when the held-out KL from the initial policy (temperature 1, nats per answer) is above this",
    )
    length_growth: float | None = Field(
        None, gt=0, description="stop when held-out answers are more than this many times as long as the initial ones"
    )
    abstained: float | None = Field(
        None, ge=0, le=1, description="stop when the judge gave no answer on a larger share of the prompts"
    )
    chosen_fall: float | None = Field(
        None,
        gt=0,
        description="stop when an update lowered log P(chosen) by more nats, on average over its last quarter",
    )
    query: str | None = Field(
        None, description="SQL, or a .sql file: a row with found, bound and message stops the run, see docs/queries.md"
    )

    rules: list[Named] = Field(
        default_factory=list, description="your own rules, each with its bound: [{kind: ./rules.py:drift, bound: 2}]"
    )


class Step(Section):
    timeout: float | None = Field(
        None, gt=0, description="seconds after which the step and its child processes are ended"
    )
    retries: int = Field(2, ge=0, description="how often a failed step is retried (under Prefect)")


class Steps(Section):
    stall: float | None = Field(3600, gt=0, description="seconds without any progress after which a step is ended")
    backoff: float = Field(2, gt=0, description="seconds before the first retry; doubled for each further one")
    sample: Step = Field(default_factory=Step)
    judge: Step = Field(default_factory=lambda: Step(retries=3))
    pair: Step = Field(default_factory=lambda: Step(retries=0))
    score: Step = Field(default_factory=lambda: Step(retries=1))
    learn: Step = Field(default_factory=lambda: Step(retries=1))
    evaluate: Step = Field(default_factory=Step)


class Keep(Section):
    checkpoints: int | None = Field(
        None,
        ge=1,
        description="how many of the newest checkpoints keep their files, besides those a run still needs; null: all",
    )
    read_copy: bool = Field(True, description="after every step, bring the store's read copy up to date")
