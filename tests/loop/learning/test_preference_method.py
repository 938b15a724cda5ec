"""What reaches a loss from the rows of a round: baselines, token weights, divergence, samples, rationales, groups."""

from math import log
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from sparring.loop.errors import ConfigError, DataError
from sparring.loop.learning.batches import Row, collate
from sparring.loop.learning.checkpoint import load_model
from sparring.loop.learning.learner import TorchLearner
from sparring.loop.learning.logprobs import completion_logprobs, token_logprobs
from sparring.loop.learning.losses import GroupLoss, bind, bind_group, bind_regularisers
from sparring.loop.learning.options import Optimization, Reference
from sparring.loop.learning.preference_method import Preference
from sparring.loop.learning.preference_terms import Terms
from sparring.loop.learning.spo import degree_rows, tf_idf, without_key_content
from sparring.loop.learning.training_rows import GroupRows, PairRows, TrainingRows
from sparring.loop.tokens import Template
from tests.helpers.learner_pairs import N, initial, make_learner, round_of, scored, unscored, with_column
from tests.helpers.tiny import build_tiny_model

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("models") / "other", seed=1)


def learner_of(
    folder: Path, terms: Terms | GroupLoss, reference: Reference | None = None, **options: Any
) -> TorchLearner:
    names = ("baseline", "from_divergence")
    method = Preference(terms, **{k: v for k, v in options.items() if k in names})
    made = Optimization(
        **{"lr": 1e-3, "batch_size": N, "warmup": 0.0, **{k: v for k, v in options.items() if k not in names}}
    )
    return TorchLearner(folder, method, made, seed=0, reference=reference, dtype="float32")


def alone(folder: Path, rows: list[Row]) -> torch.Tensor:
    """(rows, completions) log-probs, one row at a time."""
    model = load_model(folder, CPU)
    with torch.no_grad():
        return torch.stack([completion_logprobs(model, collate([row])) for row in rows])


@pytest.mark.slow
def test_kto_compares_with_answers_to_other_prompts(tiny: Path, other: Path, tmp_path: Path) -> None:
    """z0 = max(0, mean log-ratio of the next row's answers), over the whole batch however it is cut."""
    pairs = unscored(tiny)
    table = scored(make_learner(tmp_path / "x"), initial(other), pairs)
    rows = TrainingRows.read(table, str(tiny)).rows
    moved = [Row(row.prompt, rows[(i + 1) % N].completions) for i, row in enumerate(rows)]
    z0 = max(0.0, float((alone(tiny, moved) - alone(other, moved)).mean()))
    ratio = alone(tiny, rows) - alone(other, rows)
    s = torch.sigmoid
    expected = (1 - s(0.1 * (ratio[:, 0] - z0))) + (1 - s(0.1 * (z0 - ratio[:, 1])))
    rnd = round_of(initial(tiny))
    rnd = type(rnd)("run", 1, rnd.policy, rnd.policy, initial(other), rnd.policy, ())
    found = []
    for budget in (1, 300, 100_000):
        learner = learner_of(
            tmp_path / str(budget), Terms(bind("kto")), Reference(), baseline="mismatched", token_budget=budget
        )
        found.append(learner.learn(rnd, table)[2][0].metrics["loss"])
    assert found == pytest.approx([float(expected.mean())] * 3, rel=1e-5)
    assert z0 > 0.01  # or the test could not tell


def test_bco_continues_from_earlier_steps(tiny: Path, tmp_path: Path) -> None:
    policy = initial(tiny)
    learner = learner_of(tmp_path, Terms(bind("bco", beta=1.0), beta=1.0), baseline="running", epochs=3)
    _, _, steps = learner.learn(round_of(policy), scored(learner, policy, unscored(tiny)))
    first = steps[0].metrics
    assert first["loss"] == pytest.approx(2 * log(2), abs=1e-5)  # both rewards at 0, against 0
    # The second step's loss is against the first's mean log-ratio, which was 0; the third's against that of both.
    assert steps[1].metrics["loss"] < first["loss"]


def test_a_mismatch_needs_one_reference_that_stays(tiny: Path, tmp_path: Path) -> None:
    learner = learner_of(tmp_path, Terms(bind("kto")), Reference(kind="sync"), baseline="mismatched")
    with pytest.raises(ConfigError, match="needs one reference that stays"):
        learner.learn(round_of(initial(tiny)), unscored(tiny))


def with_shared_beginnings(folder: Path) -> pa.Table:
    """Pairs whose answers begin alike: the first 0, 1, 2 ... characters."""
    tokens = unscored(folder)["token_ids"].to_pylist()
    begun = [[[*tokens[0][0][:i], *answer] for answer in row] for i, row in enumerate(tokens)]
    return unscored(folder, token_ids=begun)


def test_a_divergence_gives_what_the_whole_answers_give(tiny: Path, other: Path, tmp_path: Path) -> None:
    """What both answers share cancels in the gap: step-level DPO is DPO of the whole (arXiv:2405.00451)."""
    policy = initial(tiny)
    pairs = with_shared_beginnings(tiny)
    table = scored(make_learner(tmp_path / "x"), initial(other), pairs)
    whole, step = (
        learner_of(tmp_path / str(k), Terms(bind("sigmoid")), from_divergence=k, lr=1e-4, epochs=2).learn(
            round_of(policy), table
        )
        for k in (False, True)
    )
    for a, b in zip(whole[2], step[2], strict=True):
        for name in ("loss", "reward_margin", "grad_norm"):
            assert b.metrics[name] == pytest.approx(a.metrics[name], rel=1e-4)
        # 0 + 1 + ... + 6 that were put before them, "F" of "Four." and "Five", "It does" of "It does not."
        assert b.metrics["chosen_tokens"] == pytest.approx(a.metrics["chosen_tokens"] - (21 + 1 + 7) / 7)


def test_answers_that_differ_at_once_are_learned_whole(tiny: Path, tmp_path: Path) -> None:
    policy = initial(tiny)
    differ = [row[:1] != other[:1] for row, other in unscored(tiny)["token_ids"].to_pylist()]
    assert not all(differ)  # "Because" and "Why not" differ; "It does" and "It does not" do not
    tables = unscored(tiny).filter(pa.array(differ))
    table = scored(make_learner(tmp_path / "x"), policy, tables)
    found = [
        learner_of(tmp_path / str(k), Terms(bind("sigmoid")), from_divergence=k).learn(round_of(policy), table)[0]
        for k in (False, True)
    ]
    assert found[0].weights_sha256 == found[1].weights_sha256


def test_ld_weighs_what_is_longer(tiny: Path, other: Path, tmp_path: Path) -> None:
    """LD-DPO: lp = (first min(|w|, |l|) tokens) + alpha (the rest), for policy and reference alike."""
    table = scored(make_learner(tmp_path / "x"), initial(other), unscored(tiny))
    rows = TrainingRows.read(table, str(tiny)).rows

    def weighted(folder: Path) -> np.ndarray:
        model, found = load_model(folder, CPU), []
        for row in rows:
            with torch.no_grad():
                tokens = token_logprobs(model, collate([row])).numpy()
            parts = np.split(tokens, [len(row.completions[0])])
            n = min(map(len, parts))
            found.append([part[:n].sum() + 0.25 * part[n:].sum() for part in parts])
        return np.array(found)

    h = weighted(tiny) - weighted(other)
    expected = np.logaddexp(0, -0.1 * (h[:, 0] - h[:, 1])).mean()
    learner = learner_of(tmp_path, Terms(bind("sigmoid"), ld_alpha=0.25), token_budget=300)
    _, _, steps = learner.learn(round_of(initial(tiny)), table)
    assert steps[0].metrics["loss"] == pytest.approx(expected, rel=1e-5)


def test_optimism_looks_at_the_reference_sample(tiny: Path, other: Path, tmp_path: Path) -> None:
    """SELM (arXiv:2405.19332): + weight (log pi(y) - log pi_ref(y)) for a third answer, or for one of the two."""
    pairs = unscored(tiny)
    tokens = pairs["token_ids"].to_pylist()
    third = [[*row, tokens[(i + 1) % N][0]] for i, row in enumerate(tokens)]
    ids = [[f"{side}_{i}" for side in ("chosen", "rejected", "sample")] for i in range(N)]
    ids[0], third[0] = ids[0][:2], third[0][:2]  # the first pair's sample is its rejected answer
    table = unscored(tiny, token_ids=third, completion_ids=ids, has_sample=[True] * N, sample_place=[1] + [2] * (N - 1))
    table = scored(make_learner(tmp_path / "x"), initial(other), table)
    rows = TrainingRows.read(table, str(tiny)).rows
    one, two = (load_model(f, CPU) for f in (tiny, other))
    expected = []
    for row, place in zip(rows, [1] + [2] * (N - 1), strict=True):
        with torch.no_grad():
            h = completion_logprobs(one, collate([row])) - completion_logprobs(two, collate([row]))
        expected.append(np.logaddexp(0, -0.1 * float(h[0] - h[1])) + 0.01 * float(h[place]))
    terms = Terms(bind("sigmoid"), regularisers=[bind_regularisers([{"kind": "optimism", "weight": 0.01}])])
    _, _, steps = learner_of(tmp_path, terms, token_budget=300).learn(round_of(initial(tiny)), table)
    assert steps[0].metrics["loss"] == pytest.approx(np.mean(expected), rel=1e-5)


def test_rationales_are_learned_where_there_are_any(tiny: Path, tmp_path: Path) -> None:
    """RDPO (arXiv:2407.14477): their mean negative log-prob per token is added; a pair without one adds nothing."""
    policy = initial(tiny)
    terms = Terms(
        bind("sigmoid"),
        regularisers=[bind_regularisers([{"kind": "nll_rationale", "weight": 2.0}])],
        asides=frozenset({"rationale"}),
    )
    table = scored(make_learner(tmp_path / "x"), policy, unscored(tiny))
    told = with_column(table, "rationale", [None, "It is right.", *[None] * (N - 2)])
    _, _, steps = learner_of(tmp_path, terms, token_budget=300).learn(round_of(policy), told)
    from sparring.loop.learning.rationales import rationale_rows

    rows = rationale_rows(TrainingRows.read(told, str(tiny)), Template.of(str(tiny)))
    assert [row is None for row in rows] == [True, False, *[True] * (N - 2)]
    (row,) = [row for row in rows if row is not None]
    nll = -float(alone(tiny, [row])[0, 0]) / len(row.completions[0])
    assert len(row.completions[0]) == len("It is right.") + 1
    assert steps[0].metrics["loss"] == pytest.approx(log(2) + 2.0 * nll / N, rel=1e-5)
    with pytest.raises(DataError, match="no pair of the round has a rationale"):
        learner_of(tmp_path, terms).learn(round_of(policy), table)


def test_degrees_of_cut_answers_are_learned(tiny: Path, tmp_path: Path) -> None:
    """SPO (arXiv:2409.17791), our reading: the mean of -log P of the right digit is added."""
    policy = initial(tiny)
    regularise = bind_regularisers([{"kind": "degree_ce", "weight": 0.5}])
    terms = Terms(bind("sigmoid"), regularisers=[regularise], asides=frozenset({"degree"}))
    table = scored(make_learner(tmp_path / "x"), policy, unscored(tiny))
    _, _, steps = learner_of(tmp_path, terms, token_budget=300).learn(round_of(policy), table)
    rows = [row for row in degree_rows(TrainingRows.read(table, str(tiny)), Template.of(str(tiny))) if row is not None]
    digits = Template.of(str(tiny)).tokenizer.batch_decode([row.completions[0] for row in rows])
    assert digits == [str(i % 3) for i in range(N)]
    nll = [-float(alone(tiny, [row])[0, 0]) / len(row.completions[0]) for row in rows]
    assert steps[0].metrics["loss"] == pytest.approx(log(2) + 0.5 * np.mean(nll), rel=1e-5)


def test_the_words_that_weigh_most_are_cut_first() -> None:
    answers = [["the", "wren", "is", "the", "bird"], ["the", "robin", "is"], ["yes"]]
    weights = tf_idf(answers)
    common, rare = log(3 / 2), log(3)
    assert weights == [pytest.approx([2 * common, rare, common, 2 * common, rare]), [common, rare, common], [rare]]
    cut = [without_key_content(answers[0], weights[0], degree) for degree in range(3)]
    assert cut == [
        answers[0],
        ["the", "is", "the", "bird"],
        ["is", "the"],
    ]  # 0, 1 and 3 of five words, and ties in order
    assert [without_key_content(["yes"], [0.0], degree) for degree in range(3)] == [["yes"]] * 3


def test_a_loss_of_the_whole_batch_refuses_parts_of_it(tiny: Path, tmp_path: Path) -> None:
    policy = initial(tiny)
    table = scored(make_learner(tmp_path / "x"), policy, unscored(tiny))
    learner_of(tmp_path / "1", Terms(bind("aot"), whole_batch=True), token_budget=100_000).learn(
        round_of(policy), table
    )
    with pytest.raises(ConfigError, match=r"lower learn.batch_size or raise learn.token_budget"):
        learner_of(tmp_path / "2", Terms(bind("aot"), whole_batch=True), token_budget=300).learn(
            round_of(policy), table
        )


def groups(folder: Path) -> pa.Table:
    """EXCHANGES as groups of answers with rewards 1 and 0."""
    pairs = unscored(folder)
    kept = pairs.select(["row_id", "messages", "completion_ids", "token_ids", "logprobs", "stopped", "reference"])
    reals = pa.list_(pa.float64())
    return kept.append_column("rewards", pa.array([[1.0, 0.0]] * N, reals)).append_column(
        "weights", pa.array([[1.0, 1.0]] * N, reals)
    )


def test_a_group_of_two_learns_as_its_pair(tiny: Path, other: Path, tmp_path: Path) -> None:
    """RPO_nv's distance of a pair is that of a group of two (arXiv:2502.00203)."""
    policy = initial(tiny)
    one, two = (
        learner_of(tmp_path / str(k), terms, token_budget=300).learn(
            round_of(policy), scored_groups(table, other, tmp_path)
        )
        for k, (terms, table) in enumerate(
            [
                (Terms(bind("rpo_nv", distance="sq", eta=2.0)), unscored(tiny)),
                (bind_group("rpo_nv_group", distance="sq", eta=2.0), groups(tiny)),
            ]
        )
    )
    assert one[2][0].metrics["loss"] == pytest.approx(two[2][0].metrics["loss"], rel=1e-5)
    assert one[2][0].metrics["grad_norm"] == pytest.approx(two[2][0].metrics["grad_norm"], rel=1e-4)
    assert two[2][0].metrics["reward"] == 0.5 and two[2][0].metrics["answers"] == 2.0


def scored_groups(table: pa.Table, by: Path, tmp_path: Path) -> pa.Table:
    learner = make_learner(tmp_path / "scorer")
    told = {f.completion_id: f.token_logprobs for chunk in learner.score(initial(by), table) for f in chunk}
    place = table.column_names.index("reference")
    values = [[[told[i] for i in ids]] for ids in table["completion_ids"].to_pylist()]
    return table.set_column(place, table.field(place), pa.array(values, table.field(place).type))


def test_training_rows_are_pairs_groups_or_neither(tiny: Path) -> None:
    kinds = (
        (unscored(tiny), PairRows),
        (groups(tiny), GroupRows),
        (groups(tiny).drop_columns(["rewards"]), TrainingRows),
    )
    assert all(type(TrainingRows.read(table, str(tiny))) is kind for table, kind in kinds)


def test_what_is_learned_from_must_be_what_the_loss_takes(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the round has groups of answers, and the loss learns from pairs"):
        learner_of(tmp_path, Terms(bind("sigmoid"))).learn(round_of(initial(tiny)), groups(tiny))
    with pytest.raises(ConfigError, match="the round has pairs, and the loss learns from groups"):
        learner_of(tmp_path, bind_group("sft")).learn(round_of(initial(tiny)), unscored(tiny))


def test_kl_is_measured_per_token(tiny: Path, other: Path, tmp_path: Path) -> None:
    table = scored(make_learner(tmp_path / "x"), initial(other), unscored(tiny))
    rows = TrainingRows.read(table, str(tiny)).rows
    one, two = (load_model(f, CPU) for f in (tiny, other))
    with torch.no_grad():
        z = [token_logprobs(one, collate([row])) - token_logprobs(two, collate([row])) for row in rows]
    expected = {
        "kl_k1": np.mean([float(t.sum()) for t in z]) / 2,
        "kl_k2": np.mean([float((t**2 / 2).sum()) for t in z]) / 2,
        "kl_k3": np.mean([float((torch.exp(-t.double()) - 1 + t).sum()) for t in z]) / 2,
    }
    _, _, steps = learner_of(tmp_path, Terms(bind("sigmoid"))).learn(round_of(initial(tiny)), table)
    assert {name: steps[0].metrics[name] for name in expected} == pytest.approx(expected, rel=1e-4)


def test_rows_without_reference_log_probs_are_refused(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no reference log-probs; score it first"):
        learner_of(tmp_path, Terms(bind("sigmoid"))).learn(round_of(initial(tiny)), unscored(tiny))
