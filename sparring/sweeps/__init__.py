"""Sweeps: many runs of one config with changes, in one store, and their comparison. See docs/sweeps.md."""
