"""Who is paired with whom, and what is left out: builders and filters by name. `pipeline` puts them together.

Pure and light: no model, no database, standard library only. Options are keyword arguments, their defaults a builder's
or filter's own; a value that cannot be is a ConfigError, raised before anything is looked at.
"""

from collections.abc import Mapping

from sparring.loop.pairing.dataset_builders import dataset, gold
from sparring.loop.pairing.dedup import dedup
from sparring.loop.pairing.examples import group, threshold
from sparring.loop.pairing.filters import length, margin, pass_rate
from sparring.loop.pairing.ranking import all_margin, best_random, best_worst, contrast, ranked
from sparring.loop.pairing.sql_builder import sql
from sparring.loop.pairing.strength import strength
from sparring.loop.pairing.trees import siblings
from sparring.loop.pairing.types import Builder, Candidates, Choice, Dropped, Filter, Named, Pick, Row, Scored, Unpaired

BUILDERS: Mapping[str, Builder] = {
    "best_worst": best_worst,
    "best_random": best_random,
    "all_margin": all_margin,
    "contrast": contrast,
    "ranked": ranked,
    "gold": gold,
    "siblings": siblings,
    "threshold": threshold,
    "group": group,
    "dataset": dataset,
    "sql": sql,
}
EXAMPLE_BUILDERS = frozenset({"threshold", "group", "dataset"})  # give examples; the others give pairs
UNSCORED = frozenset({"gold", "dataset"})  # need no judge

FILTERS: Mapping[str, Filter] = {
    "margin": margin,
    "pass_rate": pass_rate,
    "strength": strength,
    "dedup": dedup,
    "length": length,
}
PAIR_FILTERS = frozenset({"margin", "strength", "dedup", "length"})  # look at the two sides of a pair
SCORE_FILTERS = frozenset({"margin", "pass_rate", "strength"})  # look at scores

__all__ = [
    "BUILDERS",
    "EXAMPLE_BUILDERS",
    "FILTERS",
    "PAIR_FILTERS",
    "SCORE_FILTERS",
    "UNSCORED",
    "Builder",
    "Candidates",
    "Choice",
    "Dropped",
    "Filter",
    "Named",
    "Pick",
    "Row",
    "Scored",
    "Unpaired",
    "all_margin",
    "best_random",
    "best_worst",
    "contrast",
    "dataset",
    "dedup",
    "gold",
    "group",
    "length",
    "margin",
    "pass_rate",
    "ranked",
    "siblings",
    "sql",
    "strength",
    "threshold",
]
