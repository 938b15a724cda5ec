"""Judges by reward models: one, or an ensemble, of any models with a scalar head."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from sparring.loop import traits
from sparring.loop.aggregate import AGGREGATORS, Scale, check_aggregator, members, standardised
from sparring.loop.errors import ConfigError, DataError, NotANumber
from sparring.loop.judgements import Pointwise, Scores, mean_scores, score_id, unjudged
from sparring.loop.options import option_names
from sparring.loop.types import Completion, Group, Judgement, Prompt, digest

if TYPE_CHECKING:
    from sparring.judges.reward.encoding import Encoded, Encoding
    from sparring.judges.reward.engines import Engine

CHUNK = 64  # completions per transaction

Dtype = Literal["float32", "bfloat16"]
EngineName = Literal["auto", "transformers", "vllm"]
ReadName = Literal["template", "end_of_turn"]
Row = tuple[Completion, list["Encoded | str"]]  # per model: its tokens, or why it cannot score


@dataclass(frozen=True)
class _Model:
    folder: Path
    encoding: "Encoding"
    engine: str
    members: int
    scales: list[Scale] | None


@traits.judge(canaries=True)
class RewardModelJudge(Pointwise):
    """Scores each completion alone. `model` is a folder or hub id, or a list of them: an ensemble.

    Judgements are the raw scores, one row per member. If there are several members, `read` puts each on the scale of a
    fixed set and then aggregates them (see loop.aggregate). The scale is the mean and std in the reward.json of a model
    of `spar reward train`, or `scales`, a [mean, std] for each member in order. `coefficient` is the aggregator's own
    (lam of "uncertainty", beta of "lower_bound"); None is its default.

    `max_length` None is each model's own. An over-long conversation is not cut, because the score is read at its end:
    it gets value None. `engine` "auto" is vLLM on a GPU for a model that vLLM reads correctly, else transformers.
    `token_budget` is the padded tokens per batch of transformers. `read` is where a third party's model on a chat
    template is read: at the last token that the template writes, as most are trained, or at the one that ends the turn.
    Models of `spar reward train` are read where they were trained to be, at the end of the turn. Raises ConfigError for
    options that do not fit the models.
    """

    def __init__(
        self,
        *,
        model: str | Sequence[str],
        aggregate: str = "mean",
        coefficient: float | None = None,
        scales: Sequence[Sequence[float]] | None = None,
        max_length: int | None = None,
        token_budget: int | None = None,
        dtype: Dtype = "float32",
        engine: EngineName = "auto",
        read: ReadName = "template",
    ) -> None:
        self._names = [model] if isinstance(model, str) else list(model)
        if not self._names or len(set(self._names)) < len(self._names):
            raise ConfigError(
                f"judge reward_model: model is {model!r}; expected one model, or a list of different ones"
            )
        if dtype not in ("float32", "bfloat16"):
            raise ConfigError(f"judge reward_model: dtype is {dtype!r}; expected float32 or bfloat16")
        if engine not in ("auto", "transformers", "vllm"):
            raise ConfigError(f"judge reward_model: engine is {engine!r}; expected auto, transformers or vllm")
        if read not in ("template", "end_of_turn"):
            raise ConfigError(f"judge reward_model: read is {read!r}; expected template or end_of_turn")
        for option, value in (("max_length", max_length), ("token_budget", token_budget)):
            if value is not None and value < 1:
                raise ConfigError(f"judge reward_model: {option} is {value}; expected at least 1 token")
        self._aggregate, self._options = aggregate, _coefficient(aggregate, coefficient)
        self._given = None if scales is None else _scales(scales)
        self._max_length, self._token_budget, self._dtype, self._engine = max_length, token_budget, dtype, engine
        self._where: ReadName = read

    @cached_property
    def name(self) -> str:
        """ "reward-" and a digest of the models, their tokenizers and scales, and of the options that shape a score.

        It names where a score is read only if that is not the end of the turn, where all once were.
        """
        from sparring.judges.reward.facts import folder_digest

        models = [[folder_digest(m.folder), m.encoding.max_length, m.engine, *m.encoding.ways] for m in self._models]
        return f"reward-{digest([models, self._scales, self._aggregate, self._options, self._dtype], 5)}"

    @cached_property
    def weights(self) -> Sequence[str]:
        from sparring.loop.learning.checkpoint import weights_sha256

        return [weights_sha256(m.folder) for m in self._models]

    @property
    def members(self) -> int:
        """The number of members that score each completion."""
        return sum(m.members for m in self._models)

    def member_scores(self, judgements: Sequence[Judgement]) -> Mapping[str, Sequence[float]]:
        """Of several members: their scores of each completion that all of them scored, on one scale and in order."""
        return standardised(judgements, self._scales or {})

    def missing(self, group: Group) -> int:
        return len(unjudged(group)) * self.members

    def read(self, judgements: Sequence[Judgement]) -> Scores:
        """A completion without a score from some member has none. A single model's score is its raw score."""
        if self._scales is None:
            return mean_scores(judgements)
        return members(judgements, self._aggregate, self._scales, **self._options)

    def judge(self, groups: Sequence[Group]) -> Iterator[list[Judgement]]:
        unscored = [(g.prompt, c) for g in groups for c in unjudged(g)]
        if not unscored:
            return
        rows = sorted((self._row(prompt, completion) for prompt, completion in unscored), key=_length)
        engines = self._engines
        try:
            # Short ones first, in whole chunks: the rest after a stop is then cut into the same batches as without it,
            # and gets the same scores to the last bit.
            for start in range(0, len(rows), CHUNK):
                yield self._judgements(rows[start : start + CHUNK], engines)
        finally:
            for engine in engines:
                engine.sleep()

    @cached_property
    def _models(self) -> list[_Model]:
        from sparring.judges.reward.encoding import Encoding
        from sparring.judges.reward.facts import Facts, read_facts
        from sparring.loop.models import resolve_model

        models = []
        for folder in map(resolve_model, self._names):
            ours = read_facts(folder)
            facts = ours or Facts()
            read: ReadName = "end_of_turn" if ours else self._where
            encoding = Encoding(folder, self._max_length or facts.max_length, read)
            scales = None if facts.mean is None or facts.std is None else list(zip(facts.mean, facts.std, strict=True))
            models.append(_Model(folder, encoding, self._chosen(folder, encoding), facts.members, scales))
        return models

    def _chosen(self, folder: Path, encoding: "Encoding") -> str:
        from sparring.judges.reward.engines import vllm_can
        from sparring.loop.hardware import device

        able = vllm_can(folder, encoding.end)
        if self._engine == "vllm" and not able:
            raise ConfigError(
                f"judge reward_model: vLLM cannot compute the scores of {folder}; expected a causal model of "
                "transformers' sequence classification with one label, read at the last token; set engine: transformers"
            )
        return "vllm" if able and (self._engine == "vllm" or device().type == "cuda") else "transformers"

    @cached_property
    def _scales(self) -> dict[str, Scale] | None:
        """The scale of each member by its name; None for a single member, which needs none."""
        n = self.members
        if n == 1:
            return None
        scales = self._given
        if scales is None and all(m.scales is not None for m in self._models):
            scales = [scale for m in self._models for scale in m.scales or ()]
        if scales is None or len(scales) != n:
            raise ConfigError(
                f"judge reward_model: {len(scales) if scales else 'no'} scales for {n} members; give scales: "
                "[[mean, std], ...], one for each member, of its scores on one fixed set of answers"
            )
        return {str(i): scale for i, scale in enumerate(scales)}

    @cached_property
    def _engines(self) -> list["Engine"]:
        from sparring.judges.reward.engines import TransformersEngine, VllmEngine

        return [
            VllmEngine(m.folder, self._dtype, m.encoding.max_length)
            if m.engine == "vllm"
            else TransformersEngine(m.folder, self._dtype, self._token_budget)
            for m in self._models
        ]

    def _row(self, prompt: Prompt, completion: Completion) -> Row:
        encodings: list[Encoded | str] = []
        for model in self._models:
            try:
                encoded = model.encoding.whole(prompt.messages, completion.text)
            except DataError as error:
                encodings.append(str(error))
                continue
            limit = model.encoding.max_length
            encodings.append(
                encoded if len(encoded) <= limit else f"over-long: {len(encoded)} tokens, max_length {limit}"
            )
        return completion, encodings

    def _judgements(self, rows: Sequence[Row], engines: Sequence["Engine"]) -> list[Judgement]:
        judgements = []
        first = 0
        for place, (model, engine) in enumerate(zip(self._models, engines, strict=True)):
            to_score = [encoded for _, encodings in rows if not isinstance(encoded := encodings[place], str)]
            scored = iter(engine.scores(to_score))
            for completion, encodings in rows:
                why = encodings[place]
                values = [None] * model.members if isinstance(why, str) else next(scored)
                for i, value in enumerate(values):
                    reason = why if isinstance(why, str) else ""
                    judgements.append(self._judgement(completion, first + i, value, reason))
            first += model.members
        return judgements

    def _judgement(self, completion: Completion, number: int, value: float | None, reason: str) -> Judgement:
        member = "" if self._scales is None else str(number)
        if value is not None and not isfinite(value):
            raise NotANumber(
                f"{self._names} gave {completion.id} the score {value}; the weights are broken, or bfloat16 "
                "overflowed: try dtype: float32"
            )
        record_id = score_id(self.name, completion, member)
        return Judgement(record_id, self.name, completion.id, None, member, "", 0, value, reason)


def _length(row: Row) -> tuple[int, str]:
    completion, encodings = row
    return max(1 << 30 if isinstance(each, str) else len(each) for each in encodings), completion.id


def _coefficient(aggregate: str, coefficient: float | None) -> dict[str, float]:
    check_aggregator(aggregate, {})
    if coefficient is None:
        return {}
    options = option_names(AGGREGATORS[aggregate], skip=1)
    if not options:
        raise ConfigError(f"judge reward_model: aggregate {aggregate!r} takes no coefficient; leave it out")
    return {options[0]: float(coefficient)}


def _scales(scales: Sequence[Sequence[float]]) -> list[Scale]:
    if not all(len(pair) == 2 and pair[1] > 0 for pair in scales):
        raise ConfigError(
            f"judge reward_model: scales are {scales!r}; expected [mean, std] per member, with std above 0"
        )
    return [(float(mean), float(std)) for mean, std in scales]
