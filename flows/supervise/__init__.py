"""Limits that end a step, locks between processes, and a companion process that cleans up after a dead run."""
