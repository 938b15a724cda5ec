"""Ways to correct or make labels before a reward model is trained, by name, for the `labels` of its config."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparring.loop.errors import ConfigError, DataError
from sparring.loop.labelled_pairs import Preference, split_by_prompt
from sparring.loop.options import check_options, nearest
from sparring.loop.types import derive_seed

if TYPE_CHECKING:
    from sparring.judges.reward.features import Progress
    from sparring.judges.reward.options import RewardTraining


@dataclass(frozen=True)
class Source:
    """The inputs of relabelling: labelled pairs, unlabelled pairs, and how a reward model is trained."""

    labelled: Sequence[Preference]
    unlabelled: Sequence[Preference]
    base: Path
    options: "RewardTraining"
    work: Path
    cache: Path
    progress: "Progress"

    @property
    def helper(self) -> "RewardTraining":
        """Options of helper models: as the model itself, on a frozen backbone whose features are computed once."""
        return replace(self.options, freeze="backbone", lr=None, sft=0.0, contrastive=0.0, dropout=0.0, meta=0.0)


def strength(
    source: Source,
    *,
    models: int = 10,
    folds: int = 5,
    variant: str = "soft_margin",
    wrong: float = 0.2,
    ambiguous: float = 0.2,
    smooth: float = 0.1,
    drop_ambiguous: bool = False,
) -> list[Preference]:
    """Flip, soften and set margins of labels by how much `models` reward models agree with them (2401.06080)."""
    from sparring.judges.quality import relabel_preferences
    from sparring.judges.reward.folds import out_of_fold

    options = replace(source.helper, head="linear", members=models)
    deltas = out_of_fold(source.base, source.labelled, options, folds, source.work, source.progress, cache=source.cache)
    fits = ~(deltas != deltas).any(0)  # NaN: the pair is too long, and training drops it too
    kept = [p for p, fit in zip(source.labelled, fits, strict=True) if fit]
    shares: dict[str, Any] = {"wrong": wrong, "ambiguous": ambiguous, "smooth": smooth}
    return relabel_preferences(kept, deltas[:, fits], variant, drop_ambiguous=drop_ambiguous, **shares)  # type: ignore[arg-type]


def self_evolved(
    source: Source, *, lo: float = 0.45, hi: float = 0.55, gap: float = 0.3, rounds: int = 3, validation: float = 0.2
) -> list[Preference]:
    """Add unlabelled pairs that the current model is confident about, round by round (SER, 2411.00418).

    Stops when accuracy no longer improves on a `validation` share of the labelled prompts, which no round trains on.
    """
    from sparring.judges.quality import answer_probabilities, evolve, fit_temperature, stopped_improving
    from sparring.judges.reward.folds import answer_scores
    from sparring.judges.reward.train import create, forget, train

    _need_unlabelled(source, "self_evolved")
    seed, check = split_by_prompt(source.labelled, validation, derive_seed("validation", source.options.seed))
    added: list[Preference] = []
    history: list[tuple[float, list[Preference]]] = []
    left = list(source.unlabelled)
    for number in range(rounds + 1):
        model, state = create(source.base, source.helper), source.work / f"evolve-{number}.safetensors"
        train(model, [*seed, *added], source.helper, state, source.progress, cache=source.cache)
        scores = answer_scores(model, check, source.cache)[0]
        history.append((_accuracy(scores, check), list(added)))
        forget(state)
        if number == rounds or not left or stopped_improving([a for a, _ in history]):
            break
        temperature = fit_temperature(scores[:, 0] - scores[:, 1], [p.p_a for p in check])
        centre = float(scores[scores == scores].mean())
        p = answer_probabilities(answer_scores(model, left, source.cache)[0], temperature, centre)
        sure, left = evolve(left, p, lo, hi, gap)
        added = [*added, *sure]
    _, _, best = max((a, i, pairs) for i, (a, pairs) in enumerate(history))  # on a tie, the one with more pairs
    return [*source.labelled, *best]


def weak(source: Source) -> list[Preference]:
    """Add unlabelled pairs with soft labels of labelling functions, weighted by the labelled pairs (2410.20869)."""
    from sparring.judges.weak import weak_labels

    _need_unlabelled(source, "weak")
    return [*source.labelled, *weak_labels(source.labelled, source.unlabelled)]


LABELS: dict[str, Callable[..., list[Preference]]] = {"strength": strength, "self_evolved": self_evolved, "weak": weak}


def check_labelling(kind: str, options: dict[str, Any]) -> None:
    if kind not in LABELS:
        raise ConfigError(f"there is no labelling {kind!r}{nearest(kind, LABELS)}; choose one of {', '.join(LABELS)}")
    check_options("labels", kind, LABELS[kind], options, skip=1)


def _need_unlabelled(source: Source, kind: str) -> None:
    if not source.unlabelled:
        raise DataError(f"labels {kind} has no pairs to label; name some in pairs.unlabelled")


def _accuracy(scores: Any, check: Sequence[Preference]) -> float:
    """Accuracy on the pairs that fit the context and have a winner."""
    from sparring.judges.measure import accuracy

    share = accuracy(scores[:, 0] - scores[:, 1], [p.p_a for p in check], [p.prompt for p in check]).share
    if share is None:
        raise DataError("no labelled pair is left to validate on; give more labelled pairs, or raise labels.validation")
    return share.value
