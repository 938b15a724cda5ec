"""When a step has taken too long, and the message about it. Pure: the time is an argument."""

import time
from dataclasses import dataclass

RESUME = "what was stored is kept; resume with: spar resume"


@dataclass
class Limit:
    """A step that must end within `timeout` seconds, and beat every `stall` seconds."""

    number: int
    what: str
    timeout: float | None
    stall: float | None
    slack: float  # seconds for which the run may delay a beat
    heard: bool  # whether SIGALRM reaches the code within this limit
    started: float
    beaten: float
    passed: float | None = None
    alarmed: float = 0.0
    text: str = ""

    def passes(self) -> tuple[float, str]:
        """When the limit passes unless a beat comes, and the message for that."""
        over = float("inf") if self.timeout is None else self.started + self.timeout
        stalled = float("inf") if self.stall is None else self.beaten + self.stall + self.slack
        if over <= stalled:
            return over, (
                f"the step {self.what} took longer than {self.timeout or 0:g} s and was ended; raise "
                f"steps.{self.what}.timeout if it needs that long. {RESUME.capitalize()}"
            )
        return stalled, (
            f"the step {self.what} made no progress for {self.stall or 0:g} s and was ended; raise steps.stall if it "
            f"needs that long. {RESUME.capitalize()}"
        )


class Clock:
    """Seconds in which the watched process could run, without those for which it was stopped (Ctrl-Z, a debugger)."""

    def __init__(self) -> None:
        self._ticked, self._stopped = time.monotonic(), 0.0

    def now(self) -> float:
        return time.monotonic() - self._stopped

    def tick(self, stopped: bool) -> None:
        now = time.monotonic()
        if stopped:
            self._stopped += now - self._ticked
        self._ticked = now
