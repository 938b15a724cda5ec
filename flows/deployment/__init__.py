"""Runs on a schedule: Prefect deployments, the flows that they run, and what Prefect's page shows of a round."""
