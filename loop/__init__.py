"""The domain: records, the protocols of the parts, the sequence of a round, sampling, pairing, learning, evaluation.

Imports no other package of the project.
"""
