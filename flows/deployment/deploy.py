"""Create a deployment of a config: Prefect's record of what to run, when, where, and with which parameters.

Each store has its own work queue in the pool, which starts one run at a time, of whichever deployment. A deployment's
own concurrency limit would not count other deployments. It is also a lease, which is lost when the server restarts:
Prefect 3.7 then kills the run that held it at the next renewal (410 Gone).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import URLError
from urllib.request import urlopen

from sparring.loop.errors import ConfigError, EnvironmentProblem
from sparring.loop.types import digest

if TYPE_CHECKING:
    from prefect import Flow
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.deployments.runner import RunnerDeployment
    from prefect.schedules import Schedule

TAG = "sparring"


@dataclass(frozen=True)
class Plan:
    """What to deploy. Paths in the parameters are relative to `folder`, the working folder of a run."""

    name: str
    entrypoint: str  # module.flow, as the worker imports it
    parameters: Mapping[str, Any]
    store: str
    schedules: Sequence["Schedule"] = ()
    folder: Path = field(default_factory=Path.cwd)


@dataclass(frozen=True)
class Pool:
    """The work pool. One that does not exist is created, of type process."""

    name: str
    image: str | None = None
    job_variables: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Deployed:
    full_name: str
    id: str
    queue: str
    made_pool: bool


def deploy(plan: Plan, pool: Pool) -> Deployed:
    """Create or update the deployment of a plan. Raises EnvironmentProblem, ConfigError."""
    from prefect.client.orchestration import get_client
    from prefect.deployments.runner import DeploymentApplyError
    from prefect.runner.storage import LocalStorage

    api_url()
    deployment = described(plan)
    # Not by the job variable working_dir, which only process pools have.
    deployment.storage = LocalStorage(str(plan.folder))
    deployment.job_variables = dict(pool.job_variables)
    queue = queue_name(plan.folder / plan.store)
    with get_client(sync_client=True) as client:
        made_pool = _ensure_pool(client, pool)
        _ensure_queue(client, pool.name, queue)
        ensure_watch(client)
    deployment.work_queue_name = queue
    try:
        deployment_id = deployment.apply(work_pool_name=pool.name, image=pool.image)
    except DeploymentApplyError as error:
        raise ConfigError(f"Prefect refuses the deployment {deployment.full_name}: {error}") from error
    return Deployed(deployment.full_name, str(deployment_id), queue, made_pool)


def described(plan: Plan) -> "RunnerDeployment":
    """The deployment as Prefect's object, without a work pool, as `serve` needs it."""
    from prefect.deployments.runner import RunnerDeployment
    from prefect.types.entrypoint import EntrypointType
    from prefect.utilities.importtools import import_object

    flow: Flow[..., Any] = import_object(plan.entrypoint)
    deployment = RunnerDeployment.from_flow(
        flow,
        plan.name,
        schedules=list(plan.schedules),
        parameters=dict(plan.parameters),
        description=(flow.description or "").partition("\n\nArgs:")[0],
        tags=[TAG],
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    deployment.entrypoint = plan.entrypoint  # a flow made by a function would name that function's module
    return deployment


def queue_name(store: Path) -> str:
    """The work queue of a store, the same for any path to it."""
    stem = re.sub(r"[^A-Za-z0-9._-]", "-", store.stem)
    return f"store-{stem}-{digest([str(store.resolve())], 4)}"


def api_url() -> str:
    """The URL of Prefect's API. Raises EnvironmentProblem without a server: Prefect would start a temporary one."""
    from prefect.settings import get_current_settings

    url = get_current_settings().api.url
    if url and answers(url):
        return url
    problem = (
        f"no Prefect server answers at {url}" if url else "PREFECT_API_URL is not set, so there is no Prefect server"
    )
    raise EnvironmentProblem(
        f"{problem}; start one with: prefect server start, and in another terminal: prefect config set "
        "PREFECT_API_URL=http://127.0.0.1:4200/api. On one machine, spar serve CONFIG needs neither"
    )


def answers(url: str) -> bool:
    try:
        urlopen(f"{url.rstrip('/')}/health", timeout=10).close()
    except (URLError, OSError):
        return False
    return True


def _ensure_pool(client: "SyncPrefectClient", pool: Pool) -> bool:
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectNotFound
    from prefect.workers.process import ProcessWorker

    try:
        kind = client.read_work_pool(pool.name).type
        created = False
    except ObjectNotFound:
        if pool.image:
            raise ConfigError(
                f"there is no work pool {pool.name!r}, and a process pool runs no image; create one with: prefect "
                f"work-pool create --type docker {pool.name}, or --type kubernetes"
            ) from None
        kind, created = "process", True
        template = ProcessWorker.get_default_base_job_template()
        client.create_work_pool(WorkPoolCreate(name=pool.name, type=kind, base_job_template=template))
    if pool.image and kind == "process":
        raise ConfigError(f"the work pool {pool.name!r} is a process pool, which runs no image; leave --image out")
    return created


def _ensure_queue(client: "SyncPrefectClient", pool: str, name: str) -> None:
    """Create a queue with a limit of one run, unless a person has set another limit."""
    from prefect.exceptions import ObjectNotFound

    try:
        queue = client.read_work_queue_by_name(name, work_pool_name=pool)
    except ObjectNotFound:
        client.create_work_queue(name=name, work_pool_name=pool, concurrency_limit=1)
        return
    if queue.concurrency_limit is None:
        client.update_work_queue(queue.id, concurrency_limit=1)


WATCH = "sparring: runs whose machine is gone"
BEATS = 3  # heartbeats that may be missed


def ensure_watch(client: "SyncPrefectClient") -> None:
    """Create an automation that sets a run without heartbeats to Crashed; it would block its queue forever.

    flows.supervise.guard reports a run whose process died; this is for a machine that is gone.
    """
    from prefect.client.schemas.objects import StateType
    from prefect.events.actions import ChangeFlowRunState
    from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
    from prefect.settings import get_current_settings

    beat = get_current_settings().flows.heartbeat_frequency
    if beat is None or client.read_automations_by_name(WATCH):
        return
    ends = ("Completed", "Failed", "Cancelled", "Crashed")
    trigger = EventTrigger(
        after={"prefect.flow-run.heartbeat"},
        expect={"prefect.flow-run.heartbeat", *(f"prefect.flow-run.{end}" for end in ends)},
        match={"prefect.resource.id": "prefect.flow-run.*"},
        match_related={"prefect.resource.id": f"prefect.tag.{TAG}"},
        for_each={"prefect.resource.id"},
        posture=Posture.Proactive,
        threshold=1,
        within=timedelta(seconds=BEATS * beat),
    )
    message = "no heartbeat came for a while: its machine is gone, or could not reach the server"
    action = ChangeFlowRunState(state=StateType.CRASHED, message=message)
    client.create_automation(AutomationCore(name=WATCH, description=message, trigger=trigger, actions=[action]))
