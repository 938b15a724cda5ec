"""The preference store: one DuckDB file that remembers everything a loop did."""
