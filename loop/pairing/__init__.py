"""Who is paired with whom, and what is left out: builders and filters by name. `pipeline` puts them together.

Pure and light: no model, no database, standard library only. Options are keyword arguments, their defaults a builder's
or filter's own; a value that cannot be is a ConfigError, raised before anything is looked at.
"""

from sparring.loop.pairing.builders import BUILDERS
from sparring.loop.pairing.filters import FILTERS
from sparring.loop.pairing.types import Builder, Candidates, Choice, Dropped, Filter, Named, Pick, Row, Scored, Unpaired
