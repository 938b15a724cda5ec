"""Filters: what is left out of the pairs or examples of a round. Each gives one verdict per row, in order.

To add one, write the function under `@filter(...)` in a module here: its name is the function's.
"""

from sparring.loop.registry import Registry, marked
from sparring.loop.traits import FilterTraits

FILTERS = Registry("pair filter", FilterTraits, marked(__name__, FilterTraits), "sparring.filters")
