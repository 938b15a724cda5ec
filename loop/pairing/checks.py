"""What a config says of pairing, refused before anything is sampled."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sparring.loop.errors import ConfigError
from sparring.loop.judgements import Scores
from sparring.loop.options import check_options, nearest
from sparring.loop.pairing import BUILDERS, EXAMPLE_BUILDERS, FILTERS, PAIR_FILTERS, SCORE_FILTERS, UNSCORED, Candidates


def check_pairing(kind: str, options: Mapping[str, Any]) -> None:
    """Refuse a builder, a filter (`options["filters"]`) or an option that does not exist or cannot have its value."""
    filters, own = options.get("filters", ()), {name: v for name, v in options.items() if name != "filters"}
    _check("pair builder", kind, BUILDERS, own, Candidates((), Scores({})))
    if not isinstance(filters, Sequence) or not all(isinstance(f, Mapping) and "kind" in f for f in filters):
        raise ConfigError(f"pair.filters is {filters!r}; wanted a list such as [{{kind: margin, low: 0.5}}]")
    for each in filters:
        _check("pair filter", each["kind"], FILTERS, options_of(each), [])
        _refuse_unfit(each["kind"], kind)


def _check(
    what: str, kind: str, known: Mapping[str, Callable[..., Any]], options: Mapping[str, Any], nothing: Any
) -> None:
    if kind not in known:
        raise ConfigError(f"there is no {what} {kind!r}{nearest(str(kind), known)}; choose one of {', '.join(known)}")
    check_options(what, kind, known[kind], options, skip=1)
    try:
        known[kind](nothing, **options)  # looks at its values first
    except ConfigError as refused:
        raise ConfigError(f"{what} {kind!r}: {refused}") from None


def _refuse_unfit(kind: str, builder: str) -> None:
    """A filter that has nothing to look at would drop everything, or nothing."""
    unfit = (
        (kind in PAIR_FILTERS and builder in EXAMPLE_BUILDERS, "looks at pairs, and this makes examples"),
        (kind in SCORE_FILTERS and builder in UNSCORED, "looks at scores, and this needs none"),
        (kind == "dedup" and builder == "siblings", "drops answers that are nearly equal, and siblings begin alike"),
        (kind == "strength" and builder == "siblings", "compares scores of full answers, and siblings may be partial"),
    )
    for why in (why for is_unfit, why in unfit if is_unfit):
        raise ConfigError(f"pair filter {kind!r} does not go with pair builder {builder!r}: it {why}; take one out")


def options_of(filter_: Mapping[str, Any]) -> dict[str, Any]:
    """Of an entry of `filters`."""
    return {name: value for name, value in filter_.items() if name != "kind"}
