"""What runs: rounds of self-play, measurements, reward model training, the judging of a backlog.

Beside them stands how a run is operated: decisions, retention, trackers, and the Prefect flow.
"""
