"""Training of a reward model on labelled pairs: all of it, its head on cached features, or an ensemble of adapters."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from sparring.judges.reward.features import Progress, silent, tensors_key
from sparring.judges.reward.model import RewardModel
from sparring.judges.reward.objective import RewardObjective
from sparring.judges.reward.options import RewardTraining
from sparring.judges.reward.rows import (
    PairRow,
    Pairs,
    encode_groups,
    encoding_of,
    pair_plan,
    pairs_of,
    refuse_unlearnable,
    split_rows,
)
from sparring.judges.reward.scorers import CachedScorer, Group, LiveScorer, Scorer, start_learning
from sparring.judges.reward.stages import Stage, Stream
from sparring.loop.errors import ConfigError, StepError
from sparring.loop.hardware import default_token_budget, device, fast_dtype
from sparring.loop.labelled_pairs import Preference
from sparring.loop.learning.batches import Plan
from sparring.loop.learning.optimize import optimize
from sparring.loop.learning.options import Optimization
from sparring.loop.options import option_names
from sparring.loop.types import digest


def create(folder: str | Path, options: RewardTraining) -> RewardModel:
    """A fresh head on the backbone in `folder`, as the options say. Several members are linear heads."""
    head, head_options = options.head, dict(options.head_options)
    if "members" in head_options:
        raise ConfigError("head_options has members; set members beside head instead")
    if options.members > 1:
        if head not in ("linear", "multi"):
            raise ConfigError(
                f"an ensemble of {options.members} members has linear heads; found head {head!r}, expected linear"
            )
        head, head_options = "multi", head_options | {"members": options.members}
    return RewardModel.create(
        folder,
        head,
        head_options,
        pooling=options.pooling,
        layer=options.layer,
        max_length=options.max_length,
        lm_head=options.sft > 0,
        seed=options.seed,
    )


def train(
    model: RewardModel,
    preferences: Sequence[Preference] | Pairs,
    options: RewardTraining,
    state: Path,
    progress: Progress = silent,
    *,
    cache: Path | None = None,
    unlabelled: Sequence[Preference] = (),
) -> list[dict[str, float]]:
    """Train the model in place on the pairs; returns the metrics of each optimizer step (see RewardObjective).

    `state` is a file from which a killed training resumes to the same bits. `forget` it once the model is saved.
    `cache` is a folder for the features of a frozen backbone; trainings may share it. `unlabelled` has answers of the
    current policy for `options.meta`; its labels are not read. `progress(what, done, total, loss)` is called after each
    step, and while features are computed. See `encode_pairs` for the pairs that are left out.

    With freeze: lora, the first stage trains backbone and heads on a share of the prompts. The second trains one
    adapter and one head per member on the rest, each member in its own order (2401.16635, Algorithm 1). Members on a
    frozen backbone have their own orders too. Members that train a backbone together share its batches, and differ by
    their heads' seeds.
    """
    pairs = pairs_of(model, preferences)
    groups = encode_groups(encoding_of(model), unlabelled) if options.meta else []
    refuse_unlearnable(pairs)
    _refuse_contradictions(model, options, groups)
    model.to(device())
    run = _Run(model, options, _cause(model, pairs, options, groups), cache, progress)
    rows, history = list(pairs.rows), list[dict[str, float]]()
    if options.freeze == "lora" and not model.adapters:
        if options.first_share:
            first, rows = split_rows(rows, options.first_share, options.seed)
            for part in (first, rows):
                refuse_unlearnable(Pairs(tuple(part), pairs.dropped))
            stage = Stage("first", first, groups, _together(model, first, options), options.first_lr)
            history += run.stage(stage, _first(state), keep=True)
        model.add_adapters(options.members, options.adapter_options)
    streams = _together(model, rows, options) if options.freeze == "none" else _apart(model, rows, options)
    history += run.stage(Stage("train", rows, groups, streams, options.learning_rate), state)
    model.eval()
    return history


def forget(state: Path) -> None:
    """Remove the saved state of a training."""
    state.unlink(missing_ok=True)
    _first(state).unlink(missing_ok=True)


def _first(state: Path) -> Path:
    return state.with_suffix(f".first{state.suffix}")


@dataclass(frozen=True)
class _Run:
    """The part that the stages of a training share."""

    model: RewardModel
    options: RewardTraining
    cause: str
    cache: Path | None
    progress: Progress

    def stage(self, stage: Stage, state: Path, *, keep: bool = False) -> list[dict[str, float]]:
        model, options = self.model, self.options
        if options.freeze == "backbone":
            model.backbone.requires_grad_(False)
        if model.lm_head is not None and model.adapters:
            model.lm_head.requires_grad_(False)  # under adapters, the language-model head does not train
        dtype = options.dtype or fast_dtype()
        scorer: Scorer = LiveScorer(model, stage.rows, stage.groups, dtype)
        if _cached(model, options):
            budget = options.token_budget
            scorer = CachedScorer(model, stage.rows, stage.groups, dtype, budget, self.cache, self.progress)
        start_learning(model, options.dropout)
        trained = [p for p in model.parameters() if p.requires_grad]
        before = tensors_key(trained)
        shared = {name: getattr(options, name) for name in option_names(Optimization)}
        optimization = Optimization(**shared | {"lr": stage.lr})
        history = optimize(
            model,
            RewardObjective(model, scorer, stage, options),
            stage.batches,
            optimization,
            state,
            progress=partial(self.progress, stage.name),
            cause=self.cause,
            keep=keep,
        ).history
        if tensors_key(trained) == before:
            raise StepError(
                f"{len(history)} steps on {len(stage.rows)} pairs changed no weight (lr {stage.lr:g}); raise lr, and "
                "check grad_norm and the weights of the pairs"
            )
        if isinstance(scorer, CachedScorer):
            model.head.absorb(scorer.scale)
        return history


def _cached(model: RewardModel, options: RewardTraining) -> bool:
    return options.freeze == "backbone" and not model.head.per_token


def _together(model: RewardModel, rows: Sequence[PairRow], options: RewardTraining) -> list[Stream]:
    return [Stream(tuple(range(model.members)), _plan(model, rows, options, 0))]


def _apart(model: RewardModel, rows: Sequence[PairRow], options: RewardTraining) -> list[Stream]:
    adapted = bool(model.adapters)
    return [Stream((i,), _plan(model, rows, options, i), i if adapted else 0) for i in range(model.members)]


def _plan(model: RewardModel, rows: Sequence[PairRow], options: RewardTraining, member: int) -> Plan:
    budget = 1 << 60 if _cached(model, options) else options.token_budget or default_token_budget()
    return pair_plan(rows, options, budget, member)


def _cause(model: RewardModel, pairs: Pairs, options: RewardTraining, groups: Sequence[Group]) -> str:
    """Identifies a training by everything that shapes it, so that it never resumes another's state."""
    shaping = {name: value for name, value in asdict(options).items() if name != "save_seconds"}
    weights = tensors_key([*model.parameters(), *model.buffers()])
    pair_ids = [[row.preference.id, row.preference.margin, row.preference.weight, row.chosen.ids] for row in pairs.rows]
    group_ids = [[answer.ids for answer in group] for group in groups]
    return digest({"options": shaping, "weights": weights, "pairs": pair_ids, "groups": group_ids})


def _refuse_contradictions(model: RewardModel, options: RewardTraining, groups: Sequence[Group]) -> None:
    if model.pooling == "own" or model.unread is not None:
        raise ConfigError("a third party's reward model cannot be trained further; start from a backbone")
    if options.meta and not groups:
        raise ConfigError("meta needs unlabelled answers, two or more per prompt; give some, or set meta: 0")
    if options.sft and model.lm_head is None:
        raise ConfigError("sft needs the language-model head, which this model lacks; see train.create")
    if model.head.per_token and (options.margin or options.meta):
        raise ConfigError(
            "a head of token rewards has no margin and no meta term; turn both off, or choose another head"
        )
