"""The checks of `spar doctor`: this machine, the store and its runs, and running processes."""

from pathlib import Path

from sparring.doctor import machine, places, policy, running
from sparring.store.maintenance.finding import Finding


def examine(
    store: Path, *, config: Path | None = None, probe: bool = False, kill_orphans: bool = False
) -> list[Finding]:
    """Run all checks. `probe` also samples with a tiny engine, `kill_orphans` ends orphaned processes.

    `config`: also how its policy is computed.
    """
    vllm = machine.start_vllm()  # loads during the other checks
    return [
        machine.python(),
        *map(machine.package, machine.PACKAGES),
        machine.vision(),
        machine.hardware(),
        *places.examine(store),
        *running.examine(kill_orphans),
        machine.vllm(vllm),
        *([machine.engine()] if probe else []),
        *(policy.examine(config) if config else []),
    ]
