"""Deployments on a real Prefect server, run by a real process worker: schedules, queues, cancelling, crashes, retries.

Prefect is spoken to over HTTP and by its command line, as people do it, so that this process never imports it. The
loops are shipped fakes (tests/helpers/tiny_deployed.py). Deployments with the same loop have the same store.
"""

import json
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import psutil
import pytest

from sparring.flows.config import Config, read_yaml
from sparring.flows.run.prefect_server import free_port
from sparring.loop.round import play
from sparring.store.db import rows
from sparring.store.store import DuckStore
from tests.helpers.fake_loop import contents
from tests.helpers.own_packages import own_packages
from tests.helpers.paths import ROOT
from tests.helpers.prefect_server import Prefect, is_alive, prefect_at, until
from tests.helpers.scripted_deployment import config, make
from tests.helpers.spar import MANY, project, python

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]
SOON = 20  # seconds until the two runs that the schedule of `nightly` starts
DEPLOYED: list[tuple[str, str, int | None]] = [
    ("one", "shared", None),
    ("other", "shared", None),
    ("killed", "killed", None),
    ("failed", "failed", None),
    ("nightly", "nightly", SOON),
]


@pytest.fixture(scope="module")
def prefect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prefect]:
    folder = tmp_path_factory.mktemp("deployed")
    own_packages(folder)  # a run imports none of them: its names are all in sparring
    with prefect_at(folder) as found:
        made = found.python("-m", "tests.helpers.tiny_deployed", folder, given=json.dumps(DEPLOYED))
        found.deployments = {name: made["id"] for (name, _, _), made in zip(DEPLOYED, json.loads(made), strict=True)}
        (folder / "shared" / "wait").touch()
        (folder / "failed" / "fail").touch()
        found.started = {name: found.start(name) for name in ("one", "other", "failed")}
        found.start_worker()
        yield found


def held(prefect: Prefect, loop: str) -> int:
    """The child process of a run that waits in its first round."""
    child = prefect.folder / loop / "child"
    until(child.exists)
    return int(child.read_text())


def play_bare(prefect: Prefect, loop: str, rounds: int, **changes: Any) -> Path:
    """Play without Prefect; returns the store."""
    asked = config(loop, prefect.folder, **changes)
    with chdir(prefect.folder):
        made = make(asked)
        rnd = made.start
        while rnd.index <= rounds:  # not operate: its guard would end what the worker starts meanwhile
            rnd = play(rnd, made.parts)
        made.close()
    return made.store.db.path


def undisturbed(prefect: Prefect, loop: str, rounds: int) -> dict[str, list[dict[str, Any]]]:
    """What a store holds in which the loop was played without Prefect, cancelling and crashes."""
    return contents(play_bare(prefect, loop, rounds, store=f"undisturbed/{loop}-{rounds}.duckdb"))


def test_a_cancelled_run_leaves_no_process_and_the_next_one_resumes(prefect: Prefect) -> None:
    """The next one was queued: it is of another deployment, of the same store."""
    first, second = prefect.started["one"], prefect.started["other"]
    child = held(prefect, "shared")
    time.sleep(3)  # the worker asks every second
    assert prefect.run(first)["state_type"] == "RUNNING"
    assert prefect.run(second)["state_type"] == "SCHEDULED"

    prefect.ask(f"/flow_runs/{first}/set_state", {"state": {"type": "CANCELLING"}})
    until(lambda: not is_alive(child))
    (prefect.folder / "shared" / "wait").unlink()
    assert prefect.ended(first)["state_type"] == "CANCELLED"
    assert prefect.ended(second)["state_type"] == "COMPLETED"
    assert contents(prefect.folder / "shared.duckdb") == undisturbed(prefect, "shared", 1)


def test_the_schedule_plays_one_round_after_the_other_by_itself(prefect: Prefect) -> None:
    def both() -> bool:
        return [run["state_type"] for run in prefect.runs_of("nightly")] == ["COMPLETED", "COMPLETED"]

    until(both)
    first, second = prefect.runs_of("nightly")
    assert first["auto_scheduled"] and second["auto_scheduled"]
    assert first["state"]["message"] == "nightly-00000000: 1 rounds are done"
    assert second["state"]["message"] == "nightly-00000000: 2 rounds are done"
    assert first["end_time"] <= second["start_time"]  # both were due at once
    assert contents(prefect.folder / "nightly.duckdb") == undisturbed(prefect, "nightly", 2)


def test_artifacts_of_each_round_have_a_history(prefect: Prefect) -> None:
    test_the_schedule_plays_one_round_after_the_other_by_itself(prefect)
    found = prefect.ask("/artifacts/filter", {"sort": "CREATED_DESC", "limit": 200})
    by_key: dict[str, list[Any]] = {}
    for each in found:
        by_key.setdefault(each["key"], []).append(each)
    names = ("rounds", "round", "report")
    mine = {name: by_key[f"nightly-00000000-{name}"] for name in names}
    assert [each["type"] for each in (mine["rounds"][0], mine["round"][0], mine["report"][0])] == [
        "table",
        "markdown",
        "markdown",  # Prefect keeps a link as Markdown
    ]
    assert [len(each) for each in mine.values()] == [3, 3, 2]  # rounds 0, 1 and 2; two runs
    rows = json.loads(mine["rounds"][0]["data"])
    assert [row["round"] for row in rows] == [0, 1, 2]
    assert "2 prompts = " in mine["round"][0]["data"] and "round 2" in mine["round"][0]["data"]
    assert (prefect.folder / "runs" / "nightly-00000000" / "report.html").is_file()


def test_a_failed_run_that_prefect_retries_resumes_where_it_stopped(prefect: Prefect) -> None:
    id = prefect.started["failed"]
    failed = prefect.ended(id)
    assert failed["state_type"] == "FAILED"
    assert failed["state"]["message"] == "the sampler was told to fail; remove the file to go on"
    (prefect.folder / "failed" / "fail").unlink()
    prefect.python("-m", "prefect", "flow-run", "retry", id)
    until(lambda: prefect.run(id)["state_type"] == "COMPLETED")
    assert prefect.run(id)["run_count"] == 2
    assert contents(prefect.folder / "failed.duckdb") == undisturbed(prefect, "failed", 1)
    assert contents(play_bare(prefect, "failed", 2)) == undisturbed(prefect, "failed", 2)  # and so does spar resume


def test_a_killed_worker_is_detected_and_the_next_run_resumes(prefect: Prefect) -> None:
    (prefect.folder / "killed" / "wait").touch()
    first = prefect.start("killed")
    child = held(prefect, "killed")
    engine = psutil.Process(child).parent()
    assert engine is not None and prefect.worker is not None
    prefect.worker.kill()
    prefect.worker.wait()
    engine.send_signal(signal.SIGKILL)
    crashed = prefect.ended(first)
    assert crashed["state_type"] == "CRASHED" and "killed" in crashed["state"]["message"]
    until(lambda: not is_alive(child))

    (prefect.folder / "killed" / "wait").unlink()
    prefect.start_worker()
    assert prefect.ended(prefect.start("killed"))["state_type"] == "COMPLETED"
    assert contents(prefect.folder / "killed.duckdb") == undisturbed(prefect, "killed", 1)


CALLS = """
import json, sys
from pathlib import Path
from sparring.flows.config import JudgeConfig, Prompts
from sparring.flows.deployment.scheduled import decide, evaluate, label
from tests.helpers.tiny_deployed import self_play
from tests.helpers.scripted_deployment import config

folder = Path(sys.argv[1])
gated = config("gated", folder, approve=True)
stopped = config("stopped", folder, stop={"length_growth": 0.01})
nowhere = Prompts(train="nowhere.jsonl", eval="nowhere.jsonl")
undecided = {"store": "gated.duckdb", "run": "gated"}
calls = [
    lambda: self_play(gated, return_state=True),
    lambda: self_play(gated, rounds=3, return_state=True),
    lambda: decide(**undecided, decision="approve", reason="it reads well", return_state=True),
    lambda: self_play(gated, return_state=True),
    lambda: decide("nowhere.duckdb", "gated", "approve", return_state=True),
    lambda: self_play(stopped, return_state=True),
    lambda: self_play(stopped, return_state=True),
    lambda: label(JudgeConfig(kind="rules", truncated="fail"), "labelled/preferences.duckdb", return_state=True),
    lambda: label(JudgeConfig(kind="rules", truncated="fail"), "labelled/preferences.duckdb", return_state=True),
    lambda: evaluate(gated.model_copy(update={"prompts": nowhere}), return_state=True),
]
print(json.dumps([[state.type, state.name, state.message] for state in (call() for call in calls)]))
"""


def test_a_round_awaits_a_person_and_a_rule_stops_a_run(prefect: Prefect) -> None:
    (prefect.folder / "labelled").mkdir()
    project(prefect.folder / "labelled")
    said = json.loads(prefect.python("-c", CALLS, prefect.folder).splitlines()[-1])
    first, again, decided, second, nowhere, stopped, still, labelled, relabelled, unmeasured = said
    awaiting = (
        "round {} of gated-00000000 awaits a decision: spar approve gated-00000000, or spar reject gated-00000000"
    )
    assert first == again == ["COMPLETED", "AwaitingApproval", awaiting.format(1)]
    assert decided[:2] == ["COMPLETED", "Completed"] and "approve of round 1" in decided[2]
    assert second == ["COMPLETED", "AwaitingApproval", awaiting.format(2)]
    assert nowhere[0] == "FAILED" and "nowhere.duckdb" in nowhere[2]
    assert stopped == still and stopped[0] == "FAILED"
    assert stopped[2].startswith("round 1 stopped the run by stop.length_growth: ")
    assert labelled == ["COMPLETED", "Completed", "16 judgements were made, 2 of those without an answer"]
    assert relabelled == ["COMPLETED", "Completed", "0 judgements were made, 0 of those without an answer"]
    assert unmeasured[0] == "FAILED" and "nowhere.jsonl" in unmeasured[2]
    with DuckStore(prefect.folder / "gated.duckdb").db.read() as con:
        assert rows(con, "SELECT reason, decided_by FROM decisions") == [
            {"reason": "it reads well", "decided_by": "Prefect"}
        ]
    keys = {each["key"] for each in prefect.ask("/artifacts/filter", {"limit": 200})}
    assert {"gated-00000000-note", "stopped-00000000-note"} <= keys


DOCUMENTED = [
    shlex.split(line)[1:] for line in (ROOT / "docs/deploy.md").read_text().splitlines() if line.startswith("spar ")
]
FLOWS = [("loop", "evaluate"), ("judge", "label"), ("reward", "reward-model")]
REWARD = "name: strength\nmodel: ./no-model-is-needed\npairs: {run: tiny}\n"
WRONG = [
    (["--cron", "0 99 * * *"], "--cron '0 99 * * *'"),
    (["--interval", "soon"], "--interval 'soon'"),
    (["--rrule", "FREQ=SOMETIMES"], "--rrule 'FREQ=SOMETIMES'"),
    (["--cron", "0 2 * * *", "--timezone", "Mars/Phobos"], "Mars/Phobos"),
    (["--cron", "0 2 * * *", "--interval", "1d"], "--cron and --interval were given"),
    (["--image", "sparring:latest"], "leave --image out"),
    (["--image", "sparring:latest", "--pool", "nowhere"], "prefect work-pool create --type docker nowhere"),
    (["--job-variable", "image"], "write it as key=value"),
    (["--set", "judge.kind=oracle"], "oracle"),
]


def test_spar_deploy_makes_deployments_and_updates_them(prefect: Prefect, tmp_path: Path) -> None:
    project(tmp_path)
    nightly = ["deploy", "loop.yaml", "--cron", "0 2 * * *", "--timezone", "Europe/Paris"]
    gated = ["deploy", "loop.yaml", "--interval", "12h", "--active", "--rounds", "2", "--set", "approve=true"]
    documented = [command for command in DOCUMENTED if command[0] == "deploy"]
    others = [["deploy", f"{file}.yaml", "--flow", flow] for file, flow in FLOWS]
    commands = [[*nightly, "--name", "first"], nightly, [*gated, "--job-variable", 'env={"A": "b"}']]
    wrong_ones = [["deploy", "loop.yaml", *given] for given, _ in WRONG]
    (tmp_path / "judge.yaml").write_text("kind: rules\n")
    (tmp_path / "reward.yaml").write_text(REWARD)
    prefect.ask("/work_pools/", {"name": "docker", "type": "docker"})
    made_all = prefect.spar_many([*documented, *others, *commands, *wrong_ones], tmp_path)
    fine, wrong = made_all[: -len(WRONG)], made_all[-len(WRONG) :]
    assert [code for code, _, _ in fine] == [0] * len(fine), fine
    *_, once, known, anew = fine
    names = [out.split()[0] for _, out, _ in fine]
    assert names[len(documented) : -3] == ["evaluate/tiny", "label/judge", "reward-model/strength"]
    assert "prefect worker start --pool gpu" in once[2] and "its schedule is off" in once[2]
    for (given, words), (code, out, err) in zip(WRONG, wrong, strict=True):
        assert (code, out) == (2, "") and words in err, f"{given}: {code} {out} {err}"

    name, id = once[1].split()
    made = prefect.ask(f"/deployments/{id}")
    assert (name, made["name"], made["entrypoint"]) == (
        "self-play/first",
        "first",
        "sparring.scheduled.self_play",
    )
    schedules = [(s["active"], s["schedule"]["cron"], s["schedule"]["timezone"]) for s in made["schedules"]]
    assert schedules == [(False, "0 2 * * *", "Europe/Paris")]
    assert made["parameters"]["rounds"] == 1 and made["parameters"]["config"]["learn"]["beta"] == 0.1
    assert made["pull_steps"] == [{"prefect.deployments.steps.set_working_directory": {"directory": str(tmp_path)}}]

    (first, id), (second, decides) = [line.split() for line in anew[1].splitlines()]
    assert (first, second) == ("self-play/tiny", "decide/tiny") and known[1].split() == [first, id]
    made = prefect.ask(f"/deployments/{id}")
    assert [(s["active"], s["schedule"]["interval"]) for s in made["schedules"]] == [(True, 43200.0)]
    assert made["parameters"]["rounds"] == 2 and made["job_variables"] == {"env": {"A": "b"}}
    decide = prefect.ask(f"/deployments/{decides}")
    assert decide["parameters"] == {"store": "preferences.duckdb", "run": "tiny"}
    assert decide["work_queue_name"] == made["work_queue_name"]  # it waits for a run of that store, too
    queues = prefect.ask("/work_pools/gpu/queues/filter", {})
    assert {q["concurrency_limit"] for q in queues if q["name"].startswith("store-preferences-")} == {1}
    assert [a["name"] for a in prefect.ask("/automations/filter", {})] == ["sparring: runs whose machine is gone"]


def test_without_a_server_there_is_a_remedy(tmp_path: Path) -> None:
    project(tmp_path)
    script = f"import os; os.environ['PREFECT_API_URL'] = 'http://127.0.0.1:{free_port()}/api'\n{MANY}"
    said = python("-c", script, cwd=tmp_path, given=json.dumps([(str(tmp_path), ["deploy", "loop.yaml"])]))
    code, _, err = json.loads(said.out)
    assert code == 4 and "start one with: prefect server start" in err


def test_the_form_of_a_deployment_has_every_key_of_the_config(prefect: Prefect) -> None:
    schema = prefect.ask(f"/deployments/{prefect.deployments['one']}")["parameter_openapi_schema"]
    assert schema["properties"]["config"]["description"] == "the loop, as in its YAML file"
    assert schema["properties"]["rounds"]["default"] == 1
    config_schema = Config.model_json_schema()
    assert schema["definitions"]["Config"]["properties"].keys() == config_schema["properties"].keys()
    for section, described in config_schema["$defs"].items():
        assert schema["definitions"][section]["properties"].keys() == described["properties"].keys()


def test_the_shipped_prefect_yaml_deploys(prefect: Prefect) -> None:
    file = ROOT / "flows" / "deployment" / "prefect.yaml"
    prefect.python("-m", "prefect", "--no-prompt", "deploy", "--prefect-file", file, "--all", cwd=ROOT)
    names = {"self-play", "evaluate", "label", "decide", "reward-model"}
    for flow, name in {(flow, "strength" if flow == "reward-model" else "quickstart") for flow in names}:
        made = prefect.ask(f"/deployments/name/{flow}/{name}")
        assert made["work_pool_name"] == "gpu" and made["work_queue_name"] == "store-quickstart"
        assert not any(schedule["active"] for schedule in made["schedules"])
        assert str(ROOT) in json.dumps(made["pull_steps"])
    config = prefect.ask("/deployments/name/self-play/quickstart")["parameters"]["config"]
    assert config == {k: v for k, v in read_yaml(ROOT / "examples/quickstart/config.yaml").items() if k in config}


def test_spar_serve_has_a_server_and_a_page_of_its_own_and_ends_cleanly(prefect: Prefect, tmp_path: Path) -> None:
    project(tmp_path)
    port = free_port()
    environment = prefect.environment | {"PREFECT_HOME": str(tmp_path / "home"), "PREFECT_SERVER_API_PORT": str(port)}
    environment |= {"PREFECT_SERVER_UI_ENABLED": "true"}
    del environment["PREFECT_API_URL"]
    said = tmp_path / "said"
    (arguments,) = (command for command in DOCUMENTED if command[0] == "serve")
    command = [sys.executable, "-m", "sparring.cli", *arguments]
    with said.open("w") as log:
        served = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=tmp_path)
    until(lambda: "the page: " in said.read_text() or served.poll() is not None)
    children = psutil.Process(served.pid).children(recursive=True)
    with urlopen(f"http://127.0.0.1:{port}/deployments", timeout=60) as page:
        assert b"<html" in page.read()
    with urlopen(f"http://127.0.0.1:{port}/api/deployments/name/self-play/tiny", timeout=60) as answer:
        assert json.loads(answer.read())["schedules"][0]["active"]
    served.terminate()
    assert served.wait(60) == 0
    assert "the schedules are paused" in said.read_text()
    assert "Traceback" not in said.read_text()
    assert children and not any(is_alive(child.pid) for child in children)
