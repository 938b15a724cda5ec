"""Variables of launchers and libraries: taken out before anything reads them, or refused by name."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sparring.flows.supervise.environment import own_environment
from sparring.loop.errors import EnvironmentProblem
from tests.helpers.paths import ROOT
from tests.helpers.spar import environment

TORCHRUN = {
    "RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "0", "ROLE_RANK": "0",
    "ROLE_NAME": "default", "ROLE_WORLD_SIZE": "2", "MASTER_ADDR": "node0", "MASTER_PORT": "29500",
    "TORCHELASTIC_RUN_ID": "1", "TORCHELASTIC_MAX_RESTARTS": "0",
}  # fmt: skip
MPI = {
    "OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "0", "PMI_SIZE": "4", "PMI_RANK": "0", "PMIX_NAMESPACE": "x",
    "MV2_COMM_WORLD_SIZE": "4", "MPI_LOCALRANKID": "0",
}  # fmt: skip
ACCELERATE = {
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4", "ACCELERATE_MIXED_PRECISION": "fp16", "ACCELERATE_USE_FSDP": "true",
    "ACCELERATE_DYNAMO_BACKEND": "INDUCTOR", "ACCELERATE_TORCH_DEVICE": "meta", "FSDP_OFFLOAD_PARAMS": "true",
    "PARALLELISM_CONFIG_TP_SIZE": "2", "MEGATRON_LM_TP_DEGREE": "2", "USE_TORCH_XLA": "1", "PJRT_DEVICE": "TPU",
    "XLA_USE_BF16": "1",
}  # fmt: skip
VLLM = {"VLLM_BATCH_INVARIANT": "1", "VLLM_CPU_ATTN_SPLIT_KV": "0", "VLLM_ENABLE_V1_MULTIPROCESSING": "1"}
KEPT = {
    "CUDA_VISIBLE_DEVICES": "1", "OMP_NUM_THREADS": "3", "SLURM_JOB_ID": "12", "SLURM_PROCID": "0", "HF_HOME": "/hub",
    "VLLM_CACHE_ROOT": "/cache", "VLLM_LOGGING_LEVEL": "INFO", "VLLM_CPU_KVCACHE_SPACE": "4", "TZ": "Asia/Tokyo",
    "TOKENIZERS_PARALLELISM": "true", "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True", "ROLE_OF_MINE": "x",
    "MASTER_PASSWORD": "x",
}  # fmt: skip


def test_what_shapes_rows_is_taken_out_and_named_once() -> None:
    lines: list[str] = []
    variables = TORCHRUN | MPI | ACCELERATE | VLLM | KEPT
    own_environment(variables, lines.append, imported=())
    assert variables == KEPT
    (line,) = lines
    named = set(line.replace(",", " ").split())
    assert named >= (TORCHRUN | MPI | ACCELERATE | VLLM).keys() and not named & KEPT.keys()


def test_a_clean_environment_is_left_alone_without_a_word() -> None:
    lines: list[str] = []
    variables = dict(KEPT)
    own_environment(variables, lines.append)
    assert (variables, lines) == (KEPT, [])


@pytest.mark.parametrize(
    "name",
    ["RANK", "LOCAL_RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK", "MV2_COMM_WORLD_RANK", "SLURM_PROCID"],
)
def test_a_second_copy_is_refused_by_name_and_changes_nothing(name: str) -> None:
    variables = {"WORLD_SIZE": "2", name: "1"}
    with pytest.raises(EnvironmentProblem, match=rf"{name}=1.*starts its own.*env -u {name} "):
        own_environment(variables)
    assert variables == {"WORLD_SIZE": "2", name: "1"}


def test_what_torch_has_read_already_is_refused() -> None:
    with pytest.raises(EnvironmentProblem, match=r"ONEDNN_DEFAULT_FPMATH_MODE.*start Python again"):
        own_environment({"ONEDNN_DEFAULT_FPMATH_MODE": "BF16"}, imported={"torch"})


def test_what_vllm_writes_itself_is_left_to_it() -> None:
    variables = dict(VLLM)
    own_environment(variables, imported={"torch", "vllm"})
    assert variables == VLLM


def test_before_torch_it_is_taken_out_for_native_code_too() -> None:
    """`printenv` is a child, and libc's getenv is what native libraries ask."""
    script = (
        "import ctypes, os, subprocess, sys\n"
        "from sparring.flows.supervise.environment import own_environment\n"
        "own_environment()\n"
        "assert 'torch' not in sys.modules\n"
        "getenv = ctypes.CDLL(None).getenv\ngetenv.restype = ctypes.c_char_p\n"
        "print(getenv(b'NVIDIA_TF32_OVERRIDE'), subprocess.run(['printenv', 'NVIDIA_TF32_OVERRIDE']).returncode)\n"
    )
    env = environment() | {"NVIDIA_TF32_OVERRIDE": "1"}
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=env, capture_output=True, text=True, check=True)
    assert done.stdout == "None 1\n" and "NVIDIA_TF32_OVERRIDE" in done.stderr


# Everything through which a person starts work on models, each on files that do not exist: the environment is first.
ENTRIES = {
    "run": "prepare(config)",
    "reward": "prepare_reward(RewardConfig(name='r', model='/none', pairs={'train': '/none'}))",
    "evaluate": "evaluate_checkpoint(config)",
    "label": "label_backlog(config.judge, 'none.duckdb')",
    "bench": "bench_judge(config.judge, [], 'none')",
    "python": "sparring.run(config)",
    "sweep": "plan_sweep(Path('loop.yaml'), Path('sweep.yaml'), [])",
}
EVERY = """
import os, sys
from pathlib import Path
import sparring
from sparring.flows.compose.build import prepare
from sparring.flows.config.reward import RewardConfig
from sparring.flows.run.backlog import label_backlog
from sparring.flows.run.evaluate import evaluate_checkpoint
from sparring.flows.run.judge_trials import bench_judge
from sparring.flows.run.reward import prepare_reward
from sparring.loop.errors import EnvironmentProblem
from sparring.sweeps.plan import plan_sweep
Path("loop.yaml").write_text("name: x\\npolicy: {model: /none}\\nprompts: {train: /none, eval: /none}\\n")
Path("sweep.yaml").write_text("grid: {seed: [1]}\\n")
config = sparring.read_config("loop.yaml")
for line in sys.stdin:
    os.environ["RANK"] = "1"
    try:
        eval(line)
    except EnvironmentProblem as problem:
        assert "RANK=1" in str(problem)
        print("refused")
    except Exception as error:
        print(type(error).__name__, error)
"""


@pytest.mark.slow
def test_every_way_to_start_refuses_a_second_copy(tmp_path: Path) -> None:
    given: dict[str, Any] = {"input": "\n".join(ENTRIES.values()), "capture_output": True, "text": True, "check": True}
    done = subprocess.run([sys.executable, "-c", EVERY], cwd=tmp_path, env=environment(), timeout=120, **given)
    assert dict(zip(ENTRIES, done.stdout.splitlines(), strict=True)) == dict.fromkeys(ENTRIES, "refused")


@pytest.mark.slow
def test_somebody_elses_accelerator_is_refused() -> None:
    script = (
        "from accelerate import Accelerator\nfrom sparring.loop.errors import EnvironmentProblem\n"
        "from sparring.loop.learning.optimize import own_accelerator\n"
        "Accelerator(cpu=True, gradient_accumulation_steps=4)\n"
        "print(own_accelerator().gradient_accumulation_steps)\n"
        "from accelerate.state import AcceleratorState\nAcceleratorState._reset_state(reset_partial_state=True)\n"
        "Accelerator(cpu=True, mixed_precision='bf16')\n"
        "try:\n    own_accelerator()\nexcept EnvironmentProblem as problem:\n    print(problem)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=environment(), capture_output=True, text=True)
    steps, problem = done.stdout.splitlines()
    assert steps == "1" and "mixed_precision" in problem and "process of its own" in problem
