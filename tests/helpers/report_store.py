"""A store of runs to report on: `alpha` is stopped, rolled back and goes on, `beta` goes straight, `new` has no round.

All numbers follow from the round, so that a test can say what a page must show.
"""

from collections.abc import Sequence
from pathlib import Path

from sparring.loop.evaluator import wilson
from sparring.loop.types import (
    Checkpoint,
    Completion,
    Decision,
    Evaluation,
    JudgeCall,
    JudgeInfo,
    Judgement,
    Outcome,
    Pair,
    Prompt,
    PromptOutcome,
    Record,
    Round,
    RunInfo,
    Stop,
    Update,
    UpdateStep,
    make_id,
)
from sparring.store.store import DuckStore
from tests.helpers.records import prompt

ALPHA, BETA, NEW = "alpha-00000001", "beta-00000002", "new-00000003"
RULES, LLM, PEOPLE = "rules-11111111111111111111", "llm-22222222222222222222", "people-bob"
STEPS = 12  # optimizer steps an update
FROM = {
    1: 0,
    2: 1,
    3: 2,
    4: 2,
    5: 2,
    6: 5,
}  # the round whose policy alpha's rounds start from; 3 was rejected, 5 is a branch
OUTCOMES: tuple[Outcome, ...] = ("paired", "paired", "paired", "tie", "identical", "abstained")

HOSTILE = [
    "<script>document.title = 'owned'; fetch('https://example.com/')</script>",
    "</pre></div></details></article></main></body></html><h1>broken</h1>",
    "</script><img src=https://example.com/x.png onerror=\"document.title='owned'\"><svg onload=alert(1)>",
    "{{ 7 * 7 }} {% raw %} {# gone #} ${7*7} &lt;b&gt; <!-- comment --> ]]> <style>body{display:none}</style>",
    "zero\x00 bell\x07 escape\x1b[31m c1\x85 bom\ufeff noncharacter\ufffe end",
    "left \u202eright to left override\u202c \u2067isolate without an end, \u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d",
    "z\u0351\u0351\u0351\u0351\u0351\u0351\u0351\u0351a\u0329\u0329\u0329\u0329\u0329l\u036c\u036c\u036cgo " * 20,
    "\n\n  two empty lines first, and a trailing space \n",
    "x" * 1_000_000,
    "line\n" * 200_000,
    "",
]


def report_store(path: Path, texts: Sequence[str] = ("a robin sings", "a wren does not")) -> DuckStore:
    """Three runs. The texts of alpha's answers come from `texts`, one after the other."""
    store = DuckStore(path)
    train = [prompt(f"Name bird {k}." if k else "Why <b>birds</b>?", k=k) for k in range(6)]
    held_out = [prompt(f"Name fish {k}.", "eval", k=k) for k in range(4)]
    records: list[Record] = [*train, *held_out]
    records += [JudgeInfo(RULES, "rules", {}), JudgeInfo(LLM, "llm", {"model": "x"}), JudgeInfo(PEOPLE, "people", {})]
    for run, rounds in ((ALPHA, FROM), (BETA, {k: k - 1 for k in range(1, 5)}), (NEW, {})):
        records += _run(run, rounds, train, held_out, texts)
    store.add([records])
    return store


def checkpoint_id(run: str, round: int) -> str:
    return make_id("checkpoint", run=run, round=round)


def pass_rate(run: str, round: int) -> float:
    return (0.2 if run == ALPHA else 0.3) + 0.05 * round


def win_rate(run: str, round: int) -> float:
    return 0.4 if (run, round) == (ALPHA, 3) else 0.5 + 0.04 * round


def _run(
    run: str, rounds: dict[int, int], train: Sequence[Prompt], held_out: Sequence[Prompt], texts: Sequence[str]
) -> list[Record]:
    name = run.partition("-")[0]
    config = {
        "name": name,
        "rounds": 6 if run == ALPHA else 4,
        "approve": run == ALPHA,
        "evaluate": {"gate": 0.5, "rival": "initial"},
        "stop": {"kl": 9.0, "win_rate": None},
        "learn": {"loss": "sigmoid", "beta": 0.1},
        "note": "ümläut <i>&amp;",
        "shape": {"seed": 1},
        "folder": "/home/somebody",
    }
    kept: list[Record] = [RunInfo(run, name, 7, config, f"sha-{run}", {"sparring": "0.1.0", "torch": "2.13.0"})]
    made = {r: Checkpoint(checkpoint_id(run, r), run, f"/x/{r}", None, f"sha-{run}-{r}") for r in (0, *rounds)}
    kept += made.values()
    if not rounds:
        return kept
    kept += _evaluated(run, 0, made[0], made[0])
    for index, before in rounds.items():
        rnd = Round(run, index, made[before], made[0], made[before], made[0], tuple(p.id for p in train))
        kept += [rnd, *_played(rnd, train, texts), *_learned(rnd, made[index])]
        kept += _evaluated(run, index, made[index], made[0])
    return kept + (_decided(made) if run == ALPHA else [])


def _played(rnd: Round, train: Sequence[Prompt], texts: Sequence[str]) -> list[Record]:
    kept: list[Record] = []
    for k, (asked, outcome) in enumerate(zip(train, OUTCOMES, strict=True)):
        cause = {"run": rnd.run, "round": rnd.index, "prompt": asked.id}
        answers = [
            Completion(
                make_id("completion", **cause, sample=s), rnd.run, rnd.index, asked.id, rnd.policy.id, s, "policy",
                texts[(2 * (6 * rnd.index + k) + s) % len(texts)], (1, 2, 3), (-0.5,) * 3, "stop", 1.0, 1.0, s,
            )
            for s in (0, 1)
        ]  # fmt: skip
        kept += answers
        kept += [_score(a, None if outcome == "abstained" else float(s == 0)) for s, a in enumerate(answers)]
        if rnd.run == ALPHA:
            kept += _duelled(answers[0], answers[1], k, rnd.index)
        kept.append(PromptOutcome(make_id("outcome", **cause), rnd.run, rnd.index, asked.id, outcome))
        if outcome == "paired":
            chosen, rejected = (a.id for a in answers)
            kept.append(
                Pair(make_id("pair", **cause), rnd.run, rnd.index, asked.id, chosen, rejected, 0.9, 1.0, 1.0, "best")
            )
    return kept


def _score(of: Completion, value: float | None) -> Judgement:
    return Judgement(make_id("judgement", of=of.id), RULES, of.id, None, "", "", 0, value)


def _duelled(one: Completion, other: Completion, k: int, round: int) -> list[Record]:
    """The LLM prefers what it sees first in duel 0 of each round, and the first answer otherwise; a person in duel 1
    the second answer, in duel 2 the first one."""
    seen = {0: 0.8, 1: 0.2 if k == 0 else 0.8}
    kept: list[Record] = []
    for order, p in seen.items():
        said = Judgement(make_id("judgement", of=one.id, order=order), LLM, one.id, other.id, "", "", order, p)
        call_id = make_id("call", of=said.id)
        kept += [said, JudgeCall(call_id, LLM, said.id, 1, "x", "A", "", 100, 2, 0.01, 0.5)]
    if k in (1, 2):
        person = make_id("judgement", of=one.id, by="bob")
        kept.append(Judgement(person, PEOPLE, one.id, other.id, "", "", round % 2, float(k == 2)))
    return kept


def _learned(rnd: Round, after: Checkpoint) -> list[Record]:
    update = make_id("update", run=rnd.run, round=rnd.index)
    steps = [
        UpdateStep(make_id("step", update=update, step=k), update, k, _step(rnd.index, k)) for k in range(1, STEPS + 1)
    ]
    n = OUTCOMES.count("paired")
    return [
        Update(update, rnd.run, rnd.index, "dpo", rnd.policy.id, after.id, n, 30.0 + rnd.index, {"loss": 0.6}),
        *steps,
    ]


def _step(round: int, k: int) -> dict[str, float]:
    margin = 0.05 * k + 0.02 * ((7 * k + round) % 5)
    return {
        "loss": 0.6931 - margin / 4, "accuracy": min(1.0, 0.5 + margin / 2), "ranking_accuracy": 0.6,
        "chosen_reward": -margin / 2, "rejected_reward": -1.5 * margin, "reward_margin": margin,
        "chosen_logp": -40.0 - k, "rejected_logp": -42.0 - 2 * k, "grad_norm": 5.0 + (3 * k + round) % 4,
        "lr": 1e-5 * min(1.0, k / 3), "kl_k1": 0.1 * k, "kl_k2": 0.12 * k, "kl_k3": 0.11 * k,
    }  # fmt: skip


def _evaluated(run: str, round: int, of: Checkpoint, rival: Checkpoint) -> list[Record]:
    won = win_rate(run, round)
    metrics: dict[str, tuple[float, float | None, float | None, int]] = {
        "pass_rate": (pass_rate(run, round), *wilson(pass_rate(run, round), 100), 160),
        "win_rate": (won, *wilson(won, 40), 40),
        "mean_score": (0.25 + 0.1 * round, 0.2 + 0.1 * round, 0.3 + 0.1 * round, 160),
        "mean_tokens": (40.0 + 3 * round, 38.0 + 3 * round, 42.0 + 3 * round, 160),
        "truncated": (0.02 * round, *wilson(0.02 * round, 160), 160),
        "abstained": (0.0, *wilson(0, 40), 40),
        "accepted": (float(won >= 0.5), None, None, 1),
    }
    if round:
        metrics["kl"] = (2.5 * round, 2.5 * round - 0.75, 2.5 * round + 0.75, 40)
    return [
        Evaluation(make_id("evaluation", run=run, round=round, metric=m), run, round, of.id, rival.id, m, *found)
        for m, found in metrics.items()
    ]


def _decided(made: dict[int, Checkpoint]) -> list[Record]:
    why = "KL from the initial policy is 10 nats, above 9"
    return [
        Stop("stop_a", ALPHA, 4, "kl", 10.0, 9.0, f"round 4 stopped the run by stop.kl: {why}. Go on with: ..."),
        Decision("decision_a", ALPHA, 4, 0, "approve", made[4].id, "a slip", "ann"),
        Decision("decision_b", ALPHA, 4, 1, "rollback", made[2].id, "too far <b>away</b>", "ann"),
        Decision("decision_c", ALPHA, 5, 0, "approve", made[5].id, "", "bob"),
    ]
