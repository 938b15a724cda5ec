"""Limits that end a step, locks that keep two processes apart, and a companion that cleans up after a dead run."""
