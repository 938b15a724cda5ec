"""From the section `sample` of a config to a sampler, with the models that answer beside the policy."""

from pathlib import Path
from typing import TYPE_CHECKING

from sparring.flows.compose.checkpoints import model_checkpoint
from sparring.flows.compose.judge_factory import check_judge, make_judge
from sparring.flows.config import Config, JudgeConfig, Tree
from sparring.loop.errors import ConfigError
from sparring.loop.pairing import BUILDERS
from sparring.loop.registry import Part
from sparring.loop.traits import BuilderTraits
from sparring.loop.types import Checkpoint, Prompt, Split

if TYPE_CHECKING:
    from sparring.loop.sampling.requests import SamplingEngine
    from sparring.loop.sampling.sampler import EngineSampler
    from sparring.loop.tokens import Rendering


def check_sources(config: Config, train: list[Prompt]) -> None:
    """Refuse sources that say nothing, or the same twice, and prompts without the answer that a dataset should have."""
    from sparring.loop.sampling.sources import refuse_missing

    sample = config.sample
    named = [each.of for each in sample.extra]
    if twice := sorted({of for of in named if named.count(of) > 1}):
        raise ConfigError(f"sample.extra names {twice[0]!r} twice; give one entry a higher n instead")
    if sample.n == 0 and not sample.extra:
        raise ConfigError("sample.n is 0 and sample.extra is empty: nobody answers the prompts; set one of them")
    if sample.tree is not None:
        _check_tree(config, sample.tree, train)
    _refuse_nobody(BUILDERS[config.pair.kind], set(named))
    for source in config.sample.extra:
        refuse_missing(train, source)


def _refuse_nobody(builder: Part[BuilderTraits], named: set[str]) -> None:
    """A builder that needs another's answers, and nobody else who answers."""
    if builder.traits.needs == "reference" and not named - {"dataset"}:
        raise ConfigError(
            f"pair.kind {builder.name} ranks a reference sample with the policy's answers, and sample.extra asks for "
            "none; set sample.extra: [{of: reference, temperature: 0}]"
        )
    if builder.traits.needs == "dataset" and "dataset" not in named:
        raise ConfigError(
            f"pair.kind {builder.name} learns from answers that are given, and sample.extra takes none; set "
            "sample.extra: [{of: dataset, field: response}]"
        )


def _check_tree(config: Config, tree: Tree, train: list[Prompt]) -> None:
    from sparring.judges.rules import rules_of

    sample, judge = config.sample, _value(tree)
    if judge.kind != "rules":
        raise ConfigError(
            f"sample.tree.value is judge {judge.kind!r}; a search values answers while the engine has the accelerator: "
            "expected rules, which needs no model. Verdicts to learn from are those of `judge`, whatever that is"
        )
    check_judge(judge)
    if tree.step_tokens is not None and tree.step != Tree().step:
        raise ConfigError("sample.tree has step and step_tokens, and a step ends in one way; drop one")
    if sample.n == 0 or sample.temperature == 0:
        given = "n" if sample.n == 0 else "temperature"
        raise ConfigError(f"sample.{given} is 0, and sample.tree searches among the policy's answers; drop one")
    if config.learn.algorithm != "preference":
        raise ConfigError(
            f"algorithm {config.learn.algorithm!r} learns from independent answers, and those of sample.tree share "
            "their beginnings; set learn.algorithm: preference, or drop sample.tree"
        )
    if not judge.options.keys() - {"truncated"} and not any(map(rules_of, train)):
        raise ConfigError(
            "sample.tree.value is judge rules without an option, and no train prompt has a rule: the search has no "
            "value to go by. Give prompts an answer or another rule, or the judge an option"
        )


def _value(tree: Tree) -> JudgeConfig:
    return JudgeConfig(**tree.value.entry)


def make_sampler(config: Config, run: str, run_folder: Path, rendering: "Rendering") -> "EngineSampler":
    """With an engine of its own, which starts when it is first needed."""
    from sparring.loop.learning.probing import PROBES
    from sparring.loop.sampling.sampler import EngineSampler, Sampling

    sample = config.sample
    n: dict[Split, int] = {"train": sample.n, "eval": config.evaluate.n}
    sampling = Sampling(
        n,
        sample.temperature,
        sample.top_p,
        sample.max_tokens,
        sample.chunk,
        extra=config.sample.extra,
        models=_models(config, run),
        rendering=rendering,
    )
    engine, tree, probes = _engine(config, run_folder), sample.tree, run_folder / PROBES
    if tree is None:
        return EngineSampler(engine, sampling, seed=config.seed, probes=probes)

    from sparring.loop.sampling.search import TreeSampler

    step = tree.step if tree.step_tokens is None else tree.step_tokens
    return TreeSampler(engine, sampling, tree, step, make_judge(_value(tree)), seed=config.seed, probes=probes)


def _engine(config: Config, run_folder: Path) -> "SamplingEngine":
    sample = config.sample
    dtype = None if sample.dtype == "auto" else sample.dtype
    if sample.engine == "transformers":
        from sparring.loop.sampling.transformers_engine import PlainEngine

        return PlainEngine(context=sample.context, dtype=dtype)
    from sparring.loop.sampling.vllm_engine import Engine

    return Engine(context=sample.context, dtype=dtype, max_seqs=sample.max_seqs, log=run_folder / "engine.log")


def _models(config: Config, run: str) -> dict[str, Checkpoint]:
    """The models that sources name by folder or hub id."""
    from sparring.loop.sampling.sources import ROLES

    return {each.of: model_checkpoint(run, each.of) for each in config.sample.extra if each.of not in ROLES}
