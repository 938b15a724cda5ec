"""Preference data in and out: files and datasets of other tools, with source and licence."""

from store.exchange.exporting import Exported, Wanted, export
from store.exchange.formats import Style, Text, What
from store.exchange.importing import Asked, Imported, import_rows

__all__ = ["Asked", "Exported", "Imported", "Style", "Text", "Wanted", "What", "export", "import_rows"]
