"""Builders: who is paired with whom, or which single answers are learned from. One prompt at a time.

To add one, write the function under `@builder(...)` in a module here: its name is the function's.
"""

from sparring.loop.registry import Registry, marked
from sparring.loop.traits import BuilderTraits

BUILDERS = Registry("pair builder", BuilderTraits, marked(__name__, BuilderTraits), "sparring.builders")
