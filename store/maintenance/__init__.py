"""Maintenance of the store: check, compact, backup, rebuild, forget. See docs/store.md."""
