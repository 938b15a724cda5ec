"""The flows that deployments name. A worker imports `sparring.scheduled.self_play`.

Deployments store this address for years, so it stays the same when the code behind it moves.
"""

from sparring.flows.compose.build import build, prepare
from sparring.flows.deployment.scheduled import decide, evaluate, label, reward_model, scheduled_flow
from sparring.report import write_report

self_play = scheduled_flow(lambda config: build(prepare(config)), write_report)
