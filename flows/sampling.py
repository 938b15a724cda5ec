"""From the section `sample` of a config to a sampler, with the models that answer beside the policy."""

from pathlib import Path
from typing import TYPE_CHECKING

from flows.config import Config
from loop.errors import ConfigError
from loop.types import Checkpoint, Prompt, Split, make_id

if TYPE_CHECKING:
    from loop.sampling.engine import Writes
    from loop.sampling.sampler import EngineSampler
    from loop.sampling.sources import Source


def check_sources(config: Config, train: list[Prompt]) -> None:
    """Refuse sources that say nothing, or the same twice, and prompts without the answer that a dataset should have."""
    from loop.sampling.sources import refuse_missing

    sample = config.sample
    named = [each.of for each in sample.extra]
    if twice := sorted({of for of in named if named.count(of) > 1}):
        raise ConfigError(f"sample.extra names {twice[0]!r} twice; give one entry a higher n instead")
    if sample.n == 0 and not sample.extra:
        raise ConfigError("sample.n is 0 and sample.extra is empty: nobody answers the prompts; set one of them")
    for source in _sources(config):
        refuse_missing(train, source)


def make_sampler(config: Config, run: str, run_folder: Path) -> "EngineSampler":
    """With an engine of its own, which starts when it is first needed."""
    from loop.sampling.sampler import EngineSampler, Sampling

    sample = config.sample
    n: dict[Split, int] = {"train": sample.n, "eval": config.evaluate.n}
    sampling = Sampling(
        n,
        sample.temperature,
        sample.top_p,
        sample.max_tokens,
        sample.chunk,
        extra=_sources(config),
        models=_models(config, run),
    )
    return EngineSampler(_engine(config, run_folder), sampling, seed=config.seed)


def _engine(config: Config, run_folder: Path) -> "Writes":
    sample = config.sample
    dtype = None if sample.dtype == "auto" else sample.dtype
    if sample.engine == "transformers":
        from loop.sampling.plain import PlainEngine

        return PlainEngine(context=sample.context, dtype=dtype)
    from loop.sampling.engine import Engine

    return Engine(context=sample.context, dtype=dtype, max_seqs=sample.max_seqs, log=run_folder / "engine.log")


def _sources(config: Config) -> "list[Source]":
    from loop.sampling.sources import Source

    return [Source(**dict(each)) for each in config.sample.extra]


def _models(config: Config, run: str) -> dict[str, Checkpoint]:
    """The models that sources name by folder or hub id."""
    from loop.learning.checkpoint import weights_sha256
    from loop.models import resolve_model
    from loop.sampling.sources import ROLES

    found = {}
    for of in (each.of for each in config.sample.extra if each.of not in ROLES):
        folder = resolve_model(of)
        weights = weights_sha256(folder)
        found[of] = Checkpoint(make_id("checkpoint", run=run, weights=weights), run, str(folder), None, weights)
    return found
