"""The environment of a run: variables that would shape its rows are taken out of this process and its children.

A run is one process with settings of its own. torchrun, srun, mpirun and `accelerate launch` describe a group of
processes to the libraries below, which would wait for the others, and several libraries take precision, kernels or
gradient accumulation from the environment. None of that is part of the run's id.
"""

import os
import re
import sys
from collections.abc import Callable, Container, MutableMapping

from sparring.loop.errors import EnvironmentProblem

# The number of this process among those that a launcher started.
RANKS = (
    "RANK", "LOCAL_RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK", "MV2_COMM_WORLD_RANK", "SLURM_PROCID"
)  # fmt: skip

LAUNCHERS = re.compile(
    r"RANK|WORLD_SIZE|(LOCAL|GROUP|ROLE|NODE|CROSS)_(RANK|SIZE|WORLD_SIZE)|ROLE_NAME|MASTER_(ADDR|PORT)|FORK_LAUNCHED|"
    r"(TORCHELASTIC|TORCHCOMM|OMPI|PMI|PMIX|MV2|MPI_LOCALNRANKS|MPI_LOCALRANKID|SMDATAPARALLEL|SM_HP_MP|SM_FRAMEWORK)"
    r"(_.*)?"
)
TRAINERS = re.compile(
    r"(ACCELERATE|FSDP|MEGATRON_LM|PARALLELISM_CONFIG|DEEPSPEED|XLA|PJRT|TPU)_.*|USE_TORCH_XLA|USE_HUB_KERNELS|"
    r"TRANSFORMERS_DISABLE_DEEPGEMM_LINEAR|FLASH_ATTENTION_DETERMINISTIC"
)
# Precision, kernels and instruction sets. A library reads them once, when it is imported or first used.
ROUNDING = re.compile(
    r"NVIDIA_TF32_OVERRIDE|CUBLAS(LT)?_WORKSPACE_(CONFIG|SIZE)|ATEN_CPU_CAPABILITY|(ONEDNN|DNNL)_.*|TRITON_F32_DEFAULT|"
    r"MKL_(CBWR|ENABLE_INSTRUCTIONS|DYNAMIC|DISABLE_FAST_MM)|OMP_(DYNAMIC|THREAD_LIMIT|SCHEDULE)|"
    r"TORCH_(ALLOW_TF32_CUBLAS_OVERRIDE|LINEAR_FLATTEN_3D|(BLAS|LINALG)_PREFER_.*|(CUDNN|MKLDNN|ROCM)_.*)|"
    r"PYTORCH_(TUNABLEOP_.*|MIOPEN_.*)|TORCHDYNAMO_.*|TORCH_COMPILE_.*|TORCHINDUCTOR_(?!CACHE_DIR|\w*THREADS).*"
)
VLLM_OPERATION = re.compile(  # where vLLM keeps files, listens, logs and computes, and how long it waits
    r"VLLM_(CACHE_ROOT|CONFIG_ROOT|\w*CACHE_DIR|ASSETS_CACHE|XLA_CACHE_PATH|MEDIA_CACHE|(NCCL|CUDART)_SO_PATH|\w*TIMEOUT\w*|"
    r"HOST_IP|LOOPBACK_IP|PORT|RPC_BASE_PATH|API_KEY|(CONFIGURE_)?LOGGING\w*|LOG_\w*|DEBUG_\w*|TRACE_FUNCTION|"
    r"(NO_)?USAGE_\w*|DO_NOT_TRACK|CPU_(KVCACHE_SPACE|OMP_THREADS_BIND|NUM_OF_RESERVED_CPU))"
)
SETS_ITSELF = re.compile(r"VLLM_.*|LOCAL_WORLD_SIZE")  # written by vLLM once it is imported


def say(text: str) -> None:
    print(f"spar: {text}", file=sys.stderr, flush=True)


def own_environment(
    environment: MutableMapping[str, str] | None = None,
    tell: Callable[[str], None] = say,
    imported: Container[str] = sys.modules,
) -> None:
    """Take out of the environment what would shape a run's rows, and name it in one line.

    Raises EnvironmentProblem in all but the first of several copies of one command, and when PyTorch has already read
    a variable that changes its rounding.
    """
    variables = os.environ if environment is None else environment
    _refuse_copy(variables)
    if late := [name for name in variables if ROUNDING.fullmatch(name) and "torch" in imported]:
        raise EnvironmentProblem(
            f"{', '.join(sorted(late))} changes how numbers are rounded, which the config does not know, and PyTorch "
            "was imported under it; expected an environment without it. Unset it and start Python again"
        )
    names = sorted(name for name in variables if _shapes_rows(name, imported))
    for name in names:
        del variables[name]
    if names:
        tell(f"taken out of the environment, because a run is one process with its own settings: {', '.join(names)}")


def _shapes_rows(name: str, imported: Container[str]) -> bool:
    if "vllm" in imported and SETS_ITSELF.fullmatch(name):
        return False
    kinds = (LAUNCHERS, TRAINERS, ROUNDING)
    return any(kind.fullmatch(name) for kind in kinds) or (
        name.startswith("VLLM_") and VLLM_OPERATION.fullmatch(name) is None
    )


def _refuse_copy(variables: MutableMapping[str, str]) -> None:
    ranks = {name: variables[name] for name in RANKS if variables.get(name, "").isdecimal() and int(variables[name])}
    if ranks:
        told = " ".join(f"{name}={value}" for name, value in ranks.items())
        unset = " ".join(f"-u {name}" for name in ranks)
        raise EnvironmentProblem(
            f"{told}: a launcher (torchrun, srun, mpirun, accelerate launch, a PyTorchJob) started several copies of "
            "this command, and this is not the first; expected one process, because sparring starts its own. Start it "
            f"once, as with srun --ntasks=1; where every copy plays a run of its own, start it with: env {unset} spar"
        )
