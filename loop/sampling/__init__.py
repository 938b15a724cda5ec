"""Sampling answers: the engines, the sampler, tree search, and the probe that compares engine and trainer."""
