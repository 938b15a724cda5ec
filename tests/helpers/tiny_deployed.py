"""The flow of a deployment with the loop of scripted_deployment.py, and how to deploy it."""

import json
import sys
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sparring.flows.deployment.scheduled import scheduled_flow
from sparring.report import write_report
from tests.helpers.paths import ROOT
from tests.helpers.scripted_deployment import config, make

self_play = scheduled_flow(make, write_report)


def main(folder: Path) -> None:
    """Make the deployments that stdin names: JSON of name, config's name, seconds to the first of two runs or null."""
    from prefect.schedules import RRule

    from sparring.flows.deployment.deploy import Plan, Pool, deploy

    made = []
    for name, loop, soon in json.load(sys.stdin):
        (folder / loop).mkdir(exist_ok=True)
        first = datetime.now(UTC) + timedelta(seconds=soon or 0)
        twice = f"DTSTART:{first:%Y%m%dT%H%M%SZ}\nRRULE:FREQ=SECONDLY;INTERVAL=1;COUNT=2"
        plan = Plan(
            name,
            f"{__package__}.tiny_deployed.self_play",
            {"config": config(loop, folder).resolved(), "rounds": 1},
            f"{loop}.duckdb",
            [RRule(twice)] if soon else [],
            folder,
        )
        made.append(asdict(deploy(plan, Pool("gpu", job_variables={"env": {"PYTHONPATH": str(ROOT)}}))))
    print(json.dumps(made))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
