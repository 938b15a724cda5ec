"""The config: strict, in YAML, checked before anything heavy loads.

Options of a loss, judge or pair builder are the keyword arguments of its function, so they stand beside the named
fields and are checked against the signature by `flows.build.check`.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from loop.errors import ConfigError
from loop.options import nearest

Parsed = TypeVar("Parsed", bound=BaseModel)


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid")


class WithOptions(BaseModel):
    """A section whose further keys are options of the thing it names."""

    model_config = ConfigDict(extra="allow")

    @model_validator(mode="after")
    def _whole_numbers(self) -> Self:
        """Prefect's page sends 1.0 as 1: an option is the same either way, and so is the run that it shapes."""
        for name, value in self.options.items():
            if isinstance(value, float) and value.is_integer() and self.model_extra is not None:
                self.model_extra[name] = int(value)
        return self

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class Policy(Section):
    model: str = Field(description="a local folder, a hub id, or bundled/smollm2-135m-instruct")


class Prompts(Section):
    train: str = Field(description="JSONL, Parquet or CSV file, a saved dataset's folder, or a hub dataset id[:split]")
    eval: str = Field(description="held-out prompts, as train; none of them may be among the train prompts")
    per_round: int | None = Field(None, ge=1, description="train prompts a round plays; all of them when not given")


class Sample(Section):
    n: int = Field(8, ge=1, description="completions a prompt")
    temperature: float = Field(1.0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    max_tokens: int = Field(256, ge=1)
    chunk: int = Field(64, ge=1, description="prompts that are sampled and stored at once")
    context: int = Field(2048, ge=16, description="most tokens of a prompt and its answer together")
    max_seqs: int = Field(128, ge=1, description="sequences that the engine computes side by side")
    dtype: Literal["auto", "float32", "bfloat16"] = Field("auto", description="auto: what the hardware does fastest")


class JudgeConfig(WithOptions):
    kind: str = Field("rules", description="rules, reward_model, llm, ...: see docs/judges.md; options stand beside it")
    max_abstain: float = Field(0.5, ge=0, le=1, description="share of questions without an answer that stops a round")
    canaries: Literal["refuse", "skip"] = Field(
        "refuse", description="refuse: a judge that is a model must pass its canaries before a run starts"
    )


class PairConfig(WithOptions):
    kind: str = Field("best_worst", description="best_worst; its options (per_prompt, min_margin) stand beside it")


class Learn(WithOptions):
    algorithm: Literal["dpo"] = "dpo"
    loss: str = Field("sigmoid", description="sigmoid, ipo, hinge, simpo; its options (beta, ...) stand beside it")
    lr: float = Field(1e-6, gt=0)
    batch_size: int = Field(8, ge=1, description="pairs an optimizer step")
    epochs: int = Field(1, ge=1)
    reference: Literal["initial", "previous"] = Field("previous", description="which policy the loss compares with")
    warmup: float = Field(0.1, ge=0, le=1, description="share of the steps")
    schedule: str = Field("constant_with_warmup", description="a name that transformers.get_scheduler knows")
    weight_decay: float = Field(0.0, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    token_budget: int | None = Field(
        None, ge=1, description="padded tokens a pass holds; by default as the hardware allows"
    )
    save_seconds: float = Field(120.0, ge=0, description="how often a long update saves its own state")
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"


class Evaluate(Section):
    rival: Literal["initial", "previous"] = "initial"
    n: int = Field(4, ge=1, description="completions a held-out prompt")
    gate: float | None = Field(
        0.5, ge=0, le=1, description="win rate over the rival from which a candidate is accepted"
    )
    pass_at: float = Field(1.0, description="score from which a completion passes")
    judge: JudgeConfig | None = Field(None, description="who judges held-out answers; the judge of training by default")


class Stop(Section):
    """After which round a run stops, and says why; a rule without a number is off. See loop/stopping.py."""

    win_rate: float | None = Field(None, ge=0, le=1, description="stop when the whole win-rate interval lies below")
    kl: float | None = Field(None, gt=0, description="stop when KL from the initial policy, in nats, is above")
    length_growth: float | None = Field(
        None, gt=0, description="stop when held-out answers are more than so many times as long as the initial ones"
    )
    abstained: float | None = Field(
        None, ge=0, le=1, description="stop when the judge left a larger share of the prompts without an answer"
    )
    chosen_fall: float | None = Field(
        None, gt=0, description="stop when an update lowered log P(chosen) by more nats, a mean over its last quarter"
    )


class Step(Section):
    timeout: float | None = Field(None, gt=0, description="seconds after which the step is ended, with its children")
    retries: int = Field(2, ge=0, description="times that a step which failed is called again (under Prefect)")


class Steps(Section):
    stall: float | None = Field(3600, gt=0, description="seconds without any progress after which a step is ended")
    backoff: float = Field(2, gt=0, description="seconds before the first retry; each further one waits twice as long")
    sample: Step = Field(default_factory=Step)
    judge: Step = Field(default_factory=lambda: Step(retries=3))
    pair: Step = Field(default_factory=lambda: Step(retries=0))
    score: Step = Field(default_factory=lambda: Step(retries=1))
    learn: Step = Field(default_factory=lambda: Step(retries=1))
    evaluate: Step = Field(default_factory=Step)


class Keep(Section):
    checkpoints: int | None = Field(
        None, ge=1, description="newest checkpoints whose files are kept, beside those a run still needs; null: all"
    )


class Config(Section):
    """One loop. `spar init` writes a commented example."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    store: str = "preferences.duckdb"
    seed: int = Field(0, ge=0)
    rounds: int = Field(3, ge=1)
    policy: Policy
    prompts: Prompts
    sample: Sample = Field(default_factory=Sample)
    judge: JudgeConfig = Field(default_factory=JudgeConfig)
    pair: PairConfig = Field(default_factory=PairConfig)
    learn: Learn = Field(default_factory=Learn)
    evaluate: Evaluate = Field(default_factory=Evaluate)
    approve: bool = Field(False, description="wait after each round for: spar approve, or spar reject")
    stop: Stop = Field(default_factory=Stop)
    steps: Steps = Field(default_factory=Steps)
    keep: Keep = Field(default_factory=Keep)
    trackers: list[str] = Field(default_factory=list, description="tensorboard, wandb, trackio: extras of sparring")

    def resolved(self) -> dict[str, Any]:
        """All values, defaults too, in JSON types."""
        return self.model_dump(mode="json")

    def shape(self, prompts_sha256: Mapping[str, str]) -> dict[str, Any]:
        """What shapes a run's rows: all but where it is kept and how it is operated; prompts by their content."""
        shape = self.resolved()
        for free in FREE:
            del shape[free]
        shape["judge"] = verdict_options(shape["judge"])
        if shape["evaluate"]["judge"] is not None:
            shape["evaluate"]["judge"] = verdict_options(shape["evaluate"]["judge"])
        shape["prompts"] = {"per_round": self.prompts.per_round, **prompts_sha256}
        return shape


# How a run is operated may change from day to day: it shapes no row.
FREE = ("store", "rounds", "approve", "stop", "steps", "keep", "trackers")


def verdict_options(judge: Mapping[str, Any]) -> dict[str, Any]:
    """What shapes a judge's verdicts: not how patient we are with it, nor where it is reached."""
    kept = {k: v for k, v in judge.items() if k not in ("max_abstain", "canaries", "endpoint")}
    if isinstance(kept.get("judges"), list):  # a panel
        kept["judges"] = [
            verdict_options(member) if isinstance(member, Mapping) else member for member in kept["judges"]
        ]
    return kept


def sha256(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def read_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """The config in a YAML file, with `section.key=value` overrides. Raises ConfigError, one line a mistake."""
    return parse_config(read_yaml(path, overrides), str(path))


def read_yaml(path: str | Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The mapping in a YAML file, with overrides."""
    file = Path(path)
    if not file.is_file():
        raise ConfigError(f"there is no config file {file}; write one with: spar init")
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is not YAML: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{file} holds a {type(values).__name__}; wanted keys such as name, policy, prompts")
    for change in overrides:
        override(values, change)
    return values


def parse_config(values: Mapping[str, Any], where: str) -> Config:
    return parse_model(Config, values, where)


def parse_model(model: type[Parsed], values: Mapping[str, Any], where: str) -> Parsed:
    """Raises ConfigError, one line a mistake."""
    try:
        return model.model_validate(_numbers(values))
    except ValidationError as error:
        problems = "\n".join(f"  {_explain(problem, model)}" for problem in error.errors())
        raise ConfigError(f"{where} is not a valid config:\n{problems}") from error


def override(values: dict[str, Any], change: str) -> None:
    """Set `section.key=value` in a config's values."""
    key, found, value = change.partition("=")
    if not found or not key:
        raise ConfigError(f"--set {change!r} has no value; write it as section.key=value, e.g. learn.beta=0.2")
    *sections, last = key.split(".")
    for section in sections:
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise ConfigError(f"--set {change!r}: {section} is a value, not a section")
    try:
        values[last] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {change!r}: the value is not YAML: {error}") from error


def _numbers(value: Any) -> Any:
    """YAML 1.1 reads 1e-5 as text (it wants 1.0e-5); people write 1e-5."""
    if isinstance(value, Mapping):
        return {k: _numbers(v) for k, v in value.items()}
    if isinstance(value, str) and value[:1].isdigit() and "e" in value.lower():
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _section(annotation: Any) -> type[BaseModel]:
    """The model of a section, also of one that may be left out (X | None)."""
    found: type[BaseModel] = next((a for a in get_args(annotation) if a is not type(None)), annotation)
    return found


def _explain(problem: Mapping[str, Any], model: type[BaseModel]) -> str:
    where = ".".join(map(str, problem["loc"]))
    if problem["type"] == "extra_forbidden":
        for part in problem["loc"][:-1]:
            model = _section(model.model_fields[part].annotation)
        known = list(model.model_fields)
        return f"{where}: unknown key{nearest(str(problem['loc'][-1]), known)}; there are {', '.join(known)}"
    if problem["type"] == "missing":
        return f"{where}: missing; it has no default"
    return f"{where}: found {problem['input']!r}: {problem['msg'][0].lower()}{problem['msg'][1:]}"
