"""Reports to a Prefect server that a flow run's process is gone; otherwise the run would stay Running forever."""

import base64
import json
import os
from typing import Any

PATIENCE = 10.0


def report_crash(api_url: str, flow_run_id: str, message: str) -> str | None:
    """Set a flow run that the server takes for alive to Crashed, or to Cancelled if a person asked for that.

    Returns the problem when the server could not be told, else None.
    """
    url = f"{api_url.rstrip('/')}/flow_runs/{flow_run_id}"
    try:
        believed = (ask(url)["state"] or {}).get("type")
        if believed in ("RUNNING", "PENDING"):
            ask(f"{url}/set_state", _state("CRASHED", message))
        elif believed == "CANCELLING":
            ask(f"{url}/set_state", _state("CANCELLED", message))
    except (OSError, ValueError, KeyError) as error:  # no answer, not JSON, or JSON of another server
        return f"the Prefect server at {api_url} could not be told that flow run {flow_run_id} has ended ({error})"
    return None


def _state(kind: str, message: str) -> dict[str, Any]:
    return {"state": {"type": kind, "name": kind.capitalize(), "message": message}, "force": True}


def ask(url: str, body: dict[str, Any] | None = None) -> Any:
    """Prefect's JSON answer to a GET, or to a POST of `body`. Raises OSError, or ValueError when it is not JSON."""
    from urllib.request import Request, urlopen  # takes 0.1 s, and is rarely needed

    data = None if body is None else json.dumps(body).encode()
    request = Request(url, data, {"Content-Type": "application/json", **_authorization()})
    with urlopen(request, timeout=PATIENCE) as answer:
        return json.load(answer)


def _authorization() -> dict[str, str]:
    """The header that Prefect's own client sends."""
    if secret := os.environ.get("PREFECT_API_AUTH_STRING"):
        return {"Authorization": "Basic " + base64.b64encode(secret.encode()).decode()}
    if key := os.environ.get("PREFECT_API_KEY"):
        return {"Authorization": f"Bearer {key}"}
    return {}
