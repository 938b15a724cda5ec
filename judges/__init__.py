"""Judges: each scores completions, alone or against a rival."""
