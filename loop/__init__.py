"""The domain and the learning: records, parts, the one sequence, sampling, losses. Imports nothing of ours."""
