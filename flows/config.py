"""The config: strict, in YAML, checked before anything heavy loads.

Options of a loss, judge or pair builder are the keyword arguments of its function, so they stand beside the named
fields and are checked against the signature by `flows.build.check`.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar, get_args

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationError, model_validator

from loop.errors import ConfigError
from loop.learning.recipes import STEPS
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


class Named(WithOptions):
    """One of a list of things by name; its options stand beside `kind`."""

    kind: str

    @property
    def entry(self) -> dict[str, Any]:
        return {"kind": self.kind, **self.options}


class Policy(Section):
    model: str = Field(
        description="a local folder, a hub id, bundled/smollm2-135m-instruct, or run:NAME, the policy that another run "
        "of the store ended with"
    )


class Prompts(Section):
    train: str = Field(description="JSONL, Parquet or CSV file, a saved dataset's folder, or a hub dataset id[:split]")
    eval: str = Field(description="held-out prompts, as train; none of them may be among the train prompts")
    per_round: int | None = Field(None, ge=1, description="train prompts a round plays; all of them when not given")


class Source(Section):
    """Who answers the train prompts beside the policy."""

    of: str = Field(description="reference, initial, opponent, dataset, or a model's folder or hub id")
    n: int = Field(1, ge=1, description="completions a prompt; a dataset has one")
    temperature: float | None = Field(None, ge=0, description="0: greedily, as SELM does; as the policy if not given")
    field: str = Field("response", description="of a dataset: the field of a prompt's row that has its answer")


class Tree(Section):
    """Search a tree of partial answers to each train prompt (MCTS-DPO), see docs/methods.md."""

    depth: int = Field(3, ge=1, description="steps; after the last one an answer is not cut any more")
    actions: int = Field(2, ge=2, description="answers that are sampled where the search goes on")
    step: str = Field("\n\n", min_length=1, description="the text that ends a step")
    step_tokens: int | None = Field(None, ge=1, description="steps of so many tokens, in place of step")
    iterations: int = Field(16, ge=1, description="how often the search goes on from some step, a prompt")
    exploration: float = Field(1.0, ge=0, description="how much likely and little tried steps are preferred")
    rollouts: int = Field(1, ge=1, description="full answers that a new step gets")
    value: Named = Field(
        default_factory=lambda: Named(kind="rules"), description="who values answers in the search: rules, its options"
    )


class Sample(Section):
    n: int = Field(8, ge=0, description="completions a prompt by the policy; 0: only others answer (see extra)")
    temperature: float = Field(1.0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    max_tokens: int = Field(256, ge=1)
    chunk: int = Field(64, ge=1, description="prompts that are sampled and stored at once")
    context: int = Field(2048, ge=16, description="most tokens of a prompt and its answer together")
    max_seqs: int = Field(128, ge=1, description="sequences that the engine computes side by side")
    dtype: Literal["auto", "float32", "bfloat16"] = Field("auto", description="auto: what the hardware does fastest")
    engine: Literal["vllm", "transformers"] = Field(
        "vllm", description="transformers: slow, for tiny models and for machines without vLLM"
    )
    extra: list[Source] = Field(default_factory=list, description="who answers the train prompts beside the policy")
    tree: Tree | None = Field(None, description="search for answers to train prompts step by step, in place of n")


class JudgeConfig(WithOptions):
    kind: str = Field("rules", description="rules, reward_model, llm, ...: see docs/judges.md; options stand beside it")
    max_abstain: float = Field(0.5, ge=0, le=1, description="share of questions without an answer that stops a round")
    canaries: Literal["refuse", "skip"] = Field(
        "refuse", description="refuse: a judge that is a model must pass its canaries before a run starts"
    )


class PairConfig(WithOptions):
    kind: str = Field("best_worst", description="best_worst, ranked, group, ...: see docs/methods.md; with its options")
    filters: list[Named] = Field(default_factory=list, description="margin, pass_rate, ...: each with its options")


ReferenceKind = Literal["none", "initial", "previous", "ema", "sync", "mixture"]


class Reference(Section):
    """Which policy an update compares with; a name alone is its kind."""

    kind: ReferenceKind = "previous"
    decay: float = Field(0.9, description="ema: share of the reference of the round before")
    alpha: float = Field(0.6, description="sync: how far the reference moves to the policy")
    every: int = Field(512, description="sync: after how many optimizer steps it moves")
    of: list[str] = Field(default_factory=lambda: ["previous", "initial"], description="mixture: its policies")
    weights: list[float] | None = Field(None, description="mixture: of each; adaptive when not given")
    clip: float | None = Field(None, description="mixture: how far the others' log-probs may be from the first's")


def _by_kind(value: Any) -> Any:
    return {"kind": value} if isinstance(value, str) else value


def _short(reference: Reference) -> Any:
    """Its kind alone where nothing else is said of it."""
    return reference.kind if reference == Reference(kind=reference.kind) else dict(reference)


AnyReference = Annotated[
    Reference, BeforeValidator(_by_kind, json_schema_input_type=ReferenceKind | Reference), PlainSerializer(_short)
]


class Lora(Section):
    """Learn low-rank adapters (arXiv:2106.09685), merged into the weights after each round."""

    r: int = Field(16, ge=1)
    alpha: float = Field(32, gt=0, description="the update is scaled by alpha / r")
    targets: str | list[str] = Field("all-linear", description="names of the modules that get an adapter")


class Learn(WithOptions):
    algorithm: Literal["dpo", "ppo", "rloo", "reinforce", "grpo", "dr_grpo"] = Field(
        "dpo", description="dpo: any preference loss; the others are policy gradients, whose options stand beside it"
    )
    loss: str | list[Named] = Field(
        "sigmoid", description="sigmoid, ipo, kto, ...: see docs/methods.md; a list is a sum, each with a weight"
    )
    modifiers: list[Named] = Field(default_factory=list, description="f_divergence, margin, ...: change its inputs")
    regularisers: list[Named] = Field(default_factory=list, description="nll_chosen, optimism, ...: are added to it")
    ld_alpha: float = Field(1, ge=0, le=1, description="weight of tokens beyond the shorter answer's length (LD-DPO)")
    from_divergence: bool = Field(False, description="learn from the first token on in which a pair's answers differ")
    lora: Lora | None = None
    lr: float = Field(1e-6, gt=0)
    batch_size: int = Field(8, ge=1, description="pairs an optimizer step")
    epochs: int = Field(1, ge=1)
    reference: AnyReference = Field(default_factory=Reference)
    warmup: float = Field(0.1, ge=0, le=1, description="share of the steps")
    schedule: str = Field("constant_with_warmup", description="a name that transformers.get_scheduler knows")
    weight_decay: float = Field(0.0, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    token_budget: int | None = Field(
        None, ge=1, description="padded tokens a pass holds; by default as the hardware allows"
    )
    save_seconds: float = Field(120.0, ge=0, description="how often a long update saves its own state")
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"

    @model_validator(mode="before")
    @classmethod
    def _by_recipe(cls, values: Any) -> Any:
        """A recipe of PPO says how its steps are taken, where the config does not."""
        if isinstance(values, Mapping) and values.get("algorithm") == "ppo":
            return {**STEPS.get(values.get("recipe", "unpacking"), {}), **values}
        return values


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
        for section, names in LATER.items():
            default = type(getattr(self, section))().model_dump(mode="json")
            for name in names:
                if shape[section][name] == default[name]:
                    del shape[section][name]
        shape["judge"] = verdict_options(shape["judge"])
        if shape["evaluate"]["judge"] is not None:
            shape["evaluate"]["judge"] = verdict_options(shape["evaluate"]["judge"])
        shape["prompts"] = {"per_round": self.prompts.per_round, **prompts_sha256}
        return shape


# How a run is operated may change from day to day: it shapes no row.
FREE = ("store", "rounds", "approve", "stop", "steps", "keep", "trackers")

# Keys that came after runs were started without them: at their default they shape what those runs have.
LATER = {
    "sample": ("engine", "extra", "tree"),
    "pair": ("filters",),
    "learn": ("modifiers", "regularisers", "ld_alpha", "from_divergence", "lora"),
}


def verdict_options(judge: Mapping[str, Any]) -> dict[str, Any]:
    """What shapes a judge's verdicts: not how patient we are with it, nor where it is reached."""
    kept = {k: v for k, v in judge.items() if k not in ("max_abstain", "canaries", "endpoint")}
    if isinstance(kept.get("judges"), list):  # a panel
        kept["judges"] = [
            verdict_options(member) if isinstance(member, Mapping) else member for member in kept["judges"]
        ]
    for role in ("explorer", "oracle"):  # of an active judge
        if isinstance(kept.get(role), Mapping):
            kept[role] = verdict_options(kept[role])
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
    try:
        parsed = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {change!r}: the value is not YAML: {error}") from error
    put(values, key, parsed, f"--set {change!r}")


def put(values: dict[str, Any], key: str, value: Any, where: str) -> None:
    """Set `section.key` in a config's values; sections that are not there are made."""
    *sections, last = key.split(".")
    for section in sections:
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise ConfigError(f"{where}: {section} is a value, not a section")
    values[last] = value


def _numbers(value: Any) -> Any:
    """YAML 1.1 reads 1e-5 as text (it wants 1.0e-5); people write 1e-5."""
    if isinstance(value, Mapping):
        return {k: _numbers(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_numbers(v) for v in value]
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
        for part in (p for p in problem["loc"][:-1] if isinstance(p, str)):
            model = _section(model.model_fields[part].annotation)
        known = list(model.model_fields)
        return f"{where}: unknown key{nearest(str(problem['loc'][-1]), known)}; there are {', '.join(known)}"
    if problem["type"] == "missing":
        return f"{where}: missing; it has no default"
    return f"{where}: found {problem['input']!r}: {problem['msg'][0].lower()}{problem['msg'][1:]}"
