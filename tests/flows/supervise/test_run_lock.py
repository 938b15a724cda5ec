"""One process plays a run at a time."""

import subprocess
import sys
from pathlib import Path

import pytest

from sparring.flows.supervise.run_lock import lock_run
from sparring.loop.errors import StoreBusy

HOLDER = """
import sys, time
from pathlib import Path
from sparring.flows.supervise.run_lock import lock_run
lock = lock_run(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


def test_a_second_player_is_refused_until_the_first_is_dead(tmp_path: Path) -> None:
    folder = tmp_path / "run-1"
    first = subprocess.Popen([sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE, text=True)
    assert first.stdout is not None and first.stdout.readline() == "held\n"
    with pytest.raises(StoreBusy, match="another process is playing run-1"):
        lock_run(folder)
    first.kill()
    first.communicate()
    lock_run(folder).release()
