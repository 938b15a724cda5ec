"""Which cores the engines of a test use."""

from sparring.loop.hardware import cores

CORES = cores()


def one_core(core: int) -> dict[str, str]:
    """The environment in which torch and vLLM use this core alone."""
    return {"OMP_NUM_THREADS": "1", "VLLM_CPU_OMP_THREADS_BIND": str(core)}
