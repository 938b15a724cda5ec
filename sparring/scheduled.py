"""The flows that a deployment names: a worker imports `sparring.scheduled.self_play`.

An address of its own, since deployments keep it for years: what is behind it may move.
"""

from sparring.flows.compose.build import build, prepare
from sparring.flows.deployment.scheduled import decide, evaluate, label, reward_model, scheduled_flow
from sparring.report import write_report

__all__ = ["decide", "evaluate", "label", "reward_model", "self_play"]

self_play = scheduled_flow(lambda config: build(prepare(config)), write_report)
