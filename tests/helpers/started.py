"""Processes that a test starts, found again with all that they start by a mark in their environment."""

import subprocess
import sys
import time
import uuid
from dataclasses import dataclass

import psutil

from tests.helpers.paths import ROOT
from tests.helpers.spar import environment

BOUND = 60.0  # seconds within which everything must be over, on a very busy machine


@dataclass
class Started:
    process: "subprocess.Popen[str]"
    mark: str

    def relatives(self) -> list[psutil.Process]:
        """Every living process that descends from it, itself too."""
        return [p for p in psutil.process_iter() if self._is_ours(p)]

    def gone(self, seconds: float = BOUND) -> bool:
        deadline = time.monotonic() + seconds
        while self.relatives():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            return process.environ().get("TEST_MARK") == self.mark and process.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            return False


STARTED: list[Started] = []


def start(*arguments: object) -> Started:
    mark = uuid.uuid4().hex
    command = [sys.executable, *map(str, arguments)]
    env = environment() | {"TEST_MARK": mark, "OMP_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    run = Started(subprocess.Popen(command, cwd=ROOT, env=env, stdout=pipe, stderr=pipe, text=True), mark)
    STARTED.append(run)
    return run
