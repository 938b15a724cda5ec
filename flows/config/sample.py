"""The sections on what is sampled, judged and paired."""

from typing import Any, Literal

from pydantic import Field

from sparring.flows.config.base import Named, WithOptions
from sparring.loop.sampling.options import Search, Source
from sparring.loop.section import Section


class Policy(Section):
    model: str = Field(
        description="a local folder, a hub id, bundled/smollm2-135m-instruct, or run:NAME, the policy that another run "
        "of the store ended with"
    )
    template: dict[str, Any] = Field(
        default_factory=dict, description="arguments of its chat template, e.g. {enable_thinking: false}"
    )


Rows = list[dict[str, Any]]  # of a prompt file


class Prompts(Section):
    train: str | Rows = Field(
        description="JSONL, Parquet or CSV file, a saved dataset's folder, a hub dataset id[:split], or rows"
    )
    eval: str | Rows = Field(description="held-out prompts, in the forms of train; none may be among the train prompts")
    per_round: int | None = Field(None, ge=1, description="train prompts per round; all by default")
    query: str | None = Field(
        None, description="SQL, or a .sql file: the prompt_id of those that a round takes first, see docs/queries.md"
    )
    system: Literal["keep", "merge"] = Field(
        "keep",
        description="merge: a system turn goes to the beginning of the first user turn, for chat templates without",
    )


class Tree(Search, frozen=True):
    """Search a tree of partial answers to each train prompt (MCTS-DPO), see docs/methods.md."""

    step: str = Field("\n\n", min_length=1, description="the text that ends a step")
    step_tokens: int | None = Field(None, ge=1, description="length of a step in tokens, in place of step")
    value: Named = Field(
        default_factory=lambda: Named(kind="rules"),
        description="the judge that values answers in the search: rules, with its options",
    )


class Sample(Section):
    n: int = Field(8, ge=0, description="completions per prompt by the policy; 0: only others answer (see extra)")
    temperature: float = Field(1.0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    max_tokens: int = Field(256, ge=1)
    chunk: int = Field(64, ge=1, description="prompts that are sampled and stored together")
    context: int = Field(2048, ge=16, description="maximum tokens of a prompt and its answer together")
    max_seqs: int = Field(128, ge=1, description="sequences that the engine runs at the same time")
    dtype: Literal["auto", "float32", "bfloat16"] = Field("auto", description="auto: the fastest on this hardware")
    engine: Literal["vllm", "transformers"] = Field(
        "vllm", description="transformers: slow, for tiny models and for machines without vLLM"
    )
    extra: list[Source] = Field(default_factory=list, description="who answers the train prompts besides the policy")
    tree: Tree | None = Field(
        None, description="search for answers to train prompts step by step, instead of sampling n"
    )


class JudgeConfig(WithOptions):
    kind: str = Field("rules", description="rules, reward_model, llm, ...: see docs/judges.md; options stand beside it")
    max_abstain: float = Field(0.5, ge=0, le=1, description="share of questions without an answer that stops a round")
    canaries: Literal["refuse", "skip"] = Field(
        "refuse", description="refuse: a judge that is a model must pass its canaries before a run starts"
    )


class PairConfig(WithOptions):
    kind: str = Field("best_worst", description="best_worst, ranked, group, ...: see docs/methods.md; with its options")
    filters: list[Named] = Field(default_factory=list, description="margin, pass_rate, ...: each with its options")
