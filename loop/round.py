"""One round of self-play: sample, judge, pair, score, learn, evaluate.

Each step asks the store what is missing, makes it, and adds it chunk by chunk. A round that dies is played again from
the top, and skips what is in the store. So resuming is running again, and the steps are composed in one place only.
"""

from dataclasses import replace
from typing import Any

from sparring.loop.errors import StepError
from sparring.loop.judgements import refuse_silence, to_judge
from sparring.loop.parts import Judge, OnChunk, Parts, Run, Store, call, passthrough
from sparring.loop.types import Answers, Checkpoint, Round


def sample(rnd: Round, parts: Parts) -> int:
    sources = (rnd, *parts.sampler.sources(rnd))
    return sum(_sample(source, parts) for source in sources)


def _sample(source: Round, parts: Parts) -> int:
    missing = parts.store.unsampled(source)
    return parts.store.add(parts.on_chunk("sample", len(missing), parts.sampler.sample(source, missing)))


def judge(rnd: Round, parts: Parts) -> int:
    return _ask(parts.judge, rnd, None, parts)


def _ask(judge: Judge, rnd: Round, rival: Round | None, parts: Parts) -> int:
    parts.sampler.sleep()  # a judge may be a model
    return ask(judge, rnd, rival, parts.store, parts.max_abstain, parts.on_chunk)


def ask(
    judge: Judge,
    rnd: Round | Answers,
    rival: Round | Answers | None,
    store: Store,
    max_abstain: float,
    on_chunk: OnChunk = passthrough,
) -> int:
    """Have a judge make the missing judgements. A judge that compares answers sees those of the rival, too."""
    experience = store.experience(rnd, judge.name)
    other = store.experience(rival, judge.name) if rival and judge.compares else None
    everything = to_judge(experience, other, max_abstain)
    groups, judged = [g for g in everything if judge.missing(g)], [j for g in everything for j in g.judged]
    chunks = refuse_silence(judge.judge(groups), judged, max_abstain, judge.name)
    return store.add(on_chunk("judge", sum(map(judge.missing, groups)), chunks))


def pair(rnd: Round, parts: Parts) -> int:
    return parts.store.add([parts.pairing(rnd, parts.store.experience(rnd, parts.judge.name))])


def score(rnd: Round, parts: Parts) -> int:
    """Score the training rows under the references, once per checkpoint and completion."""
    parts.sampler.sleep()
    return sum(_score(rnd, reference, parts) for reference in parts.learner.references(rnd))


def _score(rnd: Round, reference: Checkpoint, parts: Parts) -> int:
    training_rows = parts.store.training_rows(rnd, [reference])
    return parts.store.add(
        parts.on_chunk("score", _completions(training_rows), parts.learner.score(reference, training_rows))
    )


def learn(rnd: Round, parts: Parts) -> Checkpoint:
    candidate = parts.store.updated(rnd)
    if candidate is None:
        parts.sampler.sleep()
        training_rows = parts.store.training_rows(rnd, parts.learner.references(rnd))
        if training_rows.num_rows == 0:
            raise StepError(
                f"round {rnd.index} has nothing to learn from ({len(rnd.prompt_ids)} prompts, all tied, identical, "
                "abstained, filtered or failed; see outcomes in the store); raise sample.n or sample.temperature, or "
                "use prompts whose answers differ in score"
            )
        candidate, update, steps = parts.learner.learn(rnd, training_rows)
        parts.store.add([[candidate, update, *steps]])
    return candidate


def evaluate(rnd: Round, candidate: Checkpoint, parts: Parts) -> bool:
    """Measure the candidate on held-out prompts; True when the gate lets it become the policy."""
    held_out = replace(rnd, policy=candidate, prompt_ids=parts.held_out, split="eval")
    if not parts.store.evaluated(held_out):
        eval_judge = parts.eval_judge or parts.judge
        rival = replace(held_out, policy=rnd.initial if parts.evaluator.rival == "initial" else rnd.policy)
        sample(held_out, parts)
        _ask(eval_judge, held_out, rival, parts)
        if candidate.weights_sha256 != rnd.initial.weights_sha256:
            parts.sampler.sleep()
            answers = parts.store.answers(held_out)
            divergences = parts.learner.diverge(candidate, rnd.initial, answers)
            parts.store.add(parts.on_chunk("score", answers.num_rows, divergences))
        metrics = parts.evaluator.evaluate(
            held_out,
            parts.store.experience(held_out, eval_judge.name),
            parts.store.experience(rival, eval_judge.name),
            [x for x in parts.store.answers(held_out)["divergence"].to_pylist() if x is not None],
        )
        parts.store.add([metrics])
    return any(e.metric == "accepted" and e.value == 1.0 for e in parts.store.evaluated(held_out))


def _completions(rows: Any) -> int:
    return sum(map(len, rows["completion_ids"]))


def round_zero(run_id: str, initial: Checkpoint) -> Round:
    """The round before training, in which `evaluate` measures the initial policy on held-out prompts."""
    return Round(run_id, 0, initial, initial, initial, initial, ())


def following(rnd: Round, policy: Checkpoint, parts: Parts) -> Round:
    """The round after `rnd`. It plays the next slice of the train prompts and starts over when they are used up.

    `begin` sets its reference.
    """
    start = rnd.index * parts.per_round
    return replace(
        rnd,
        index=rnd.index + 1,
        policy=policy,
        opponent=rnd.policy,
        prompt_ids=tuple(parts.train[(start + i) % len(parts.train)] for i in range(parts.per_round)),
    )


def begin(rnd: Round, parts: Parts) -> Round:
    begun = replace(rnd, reference=parts.learner.anchor(rnd), judge=parts.judge.name, prompt_ids=_chosen(rnd, parts))
    parts.store.add([[begun.reference, begun]])
    return begun


def _chosen(rnd: Round, parts: Parts) -> tuple[str, ...]:
    """The prompts that were chosen for a round, filled up with the next ones in order."""
    chosen = () if parts.choose is None else parts.choose(rnd)
    if strange := set(chosen) - set(parts.train):
        raise StepError(
            f"prompts.query chose {min(strange)}, which is not a train prompt of {rnd.run}; choose train prompts only"
        )
    return tuple(dict.fromkeys((*chosen, *rnd.prompt_ids)))[: len(rnd.prompt_ids)]


def play(rnd: Round, parts: Parts, run: Run = call) -> Round:
    """Play one round and return the next. `run` calls a step; flows passes one that makes the step a Prefect task."""
    if rnd.index == 0:
        run(evaluate, rnd, rnd.initial, parts)
        return following(rnd, rnd.initial, parts)
    rnd = parts.store.begun(rnd) or begin(rnd, parts)
    run(sample, rnd, parts)
    run(judge, rnd, parts)
    run(pair, rnd, parts)
    run(score, rnd, parts)
    candidate = run(learn, rnd, parts)
    accepted = run(evaluate, rnd, candidate, parts)
    return following(rnd, candidate if accepted else rnd.policy, parts)
