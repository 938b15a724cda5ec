"""Sampling with one live vLLM engine."""
