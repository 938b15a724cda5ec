"""Reward models: a scalar for an answer, read off a language model's hidden states."""
