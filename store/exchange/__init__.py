"""Import and export of preference data: files and datasets of other tools, with source and licence."""

from sparring.store.exchange.exporting import Exported, Wanted, export
from sparring.store.exchange.formats import Style, Text, What
from sparring.store.exchange.importing import Asked, Imported, import_rows
