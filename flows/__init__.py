"""How a config becomes a loop that runs: config, parts, Prefect flows, supervision, deployment."""
