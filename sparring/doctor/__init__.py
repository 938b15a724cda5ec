"""What `spar doctor` looks at: this machine, the store and its runs, and what runs or should not run any more."""

from pathlib import Path

from sparring.doctor import machine, places, running
from sparring.doctor.finding import Finding

__all__ = ["Finding", "examine"]


def examine(store: Path, *, probe: bool = False, kill_orphans: bool = False) -> list[Finding]:
    """Look at everything. `probe` also samples with a tiny engine, `kill_orphans` ends what outlived its run."""
    vllm = machine.start_vllm()  # loads while the rest is looked at
    return [
        machine.python(),
        *map(machine.package, machine.PACKAGES),
        machine.vision(),
        machine.hardware(),
        *places.examine(store),
        *running.examine(kill_orphans),
        machine.vllm(vllm),
        *([machine.engine()] if probe else []),
    ]
