"""What runs: rounds of self-play, measurements, reward model training, judging of stored answers.

Beside them is the operation of a run: standing, decisions, retention, trackers, and the Prefect flow.
"""
