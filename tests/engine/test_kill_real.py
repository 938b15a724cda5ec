"""The short form of benchmarks/kill_and_resume.py: a real run, really killed, twice (pitfall 48)."""

from pathlib import Path

import pytest

from benchmarks.kill_and_resume import contents, finish, prepare, trial

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]
pytest.importorskip("vllm", reason="vLLM is not installed: pip install 'sparring[cpu]'")


def test_killed_twice_and_resumed(tmp_path: Path) -> None:
    config = prepare(tmp_path)
    whole = tmp_path / "whole" / "store.duckdb"
    seconds = finish("run", str(config), "--store", str(whole))
    wanted = contents(whole)
    assert len(wanted["updates"]) == 2 and wanted["pairs"]
    # Late enough that the engine has sampled: the second half of an undisturbed run is the loop itself.
    for k, share in enumerate((0.75, 0.9)):
        trial(config, tmp_path / f"kill-{k}", share * seconds, None, wanted)
