"""What a config says of pairing, refused before anything is sampled."""

from collections.abc import Mapping, Sequence
from typing import Any

from sparring.loop.errors import ConfigError
from sparring.loop.judgements import Scores
from sparring.loop.options import check_options
from sparring.loop.pairing import BUILDERS, FILTERS, Candidates
from sparring.loop.registry import Part
from sparring.loop.traits import BuilderTraits, FilterTraits


def check_pairing(kind: str, options: Mapping[str, Any]) -> None:
    """Refuse a builder, a filter (`options["filters"]`) or an option that does not exist or cannot have its value."""
    filters, own = options.get("filters", ()), {name: v for name, v in options.items() if name != "filters"}
    builder = BUILDERS[kind]
    _check(builder, own, Candidates((), Scores({})))
    if not isinstance(filters, Sequence) or not all(isinstance(f, Mapping) and "kind" in f for f in filters):
        raise ConfigError(f"pair.filters is {filters!r}; expected a list such as [{{kind: margin, low: 0.5}}]")
    for each in filters:
        chosen = FILTERS[each["kind"]]
        _check(chosen, options_of(each), [])
        _refuse_unfit(chosen, builder)


def _check(part: Part[Any], options: Mapping[str, Any], nothing: Any) -> None:
    check_options(part.what, part.name, part.make, options, skip=1)
    if part.source:
        return  # a person's own function is not called before there is something to look at
    try:
        part(nothing, **options)  # looks at its values first
    except ConfigError as refused:
        raise ConfigError(f"{part.what} {part.name!r}: {refused}") from None


def _refuse_unfit(chosen: Part[FilterTraits], builder: Part[BuilderTraits]) -> None:
    """A filter that has nothing to look at would drop everything, or nothing."""
    traits, of = chosen.traits, builder.traits
    unfit = (
        (traits.pairs and of.gives == "examples", "looks at pairs, and this makes examples"),
        (traits.scores and not of.scores, "looks at scores, and this needs none"),
        (bool(traits.whole) and of.partial, f"{traits.whole}, and these may be partial"),
    )
    for why in (why for is_unfit, why in unfit if is_unfit):
        raise ConfigError(
            f"pair filter {chosen.name!r} does not go with pair builder {builder.name!r}: it {why}; take one out"
        )


def options_of(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Of an entry of `filters`."""
    return {name: value for name, value in entry.items() if name != "kind"}
