"""One live vLLM engine for a whole run: started once, and loaded with new weights after every update."""

import gc
import json
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from sparring.loop.errors import EnvironmentProblem, StepError
from sparring.loop.hardware import device, fast_dtype, vllm_environment
from sparring.loop.sampling.requests import Answer, GreedyReply, GreedyRequest, Request
from sparring.loop.types import Checkpoint

log = logging.getLogger("sparring.engine")


class Engine:
    """vLLM in this process. `context` is the maximum number of tokens in a prompt with its answer.

    The output of vLLM and its native code during the start goes to the file `log`, if there is one. On a GPU only one
    engine per process can sleep, so a second one needs a process of its own.
    """

    # An engine that ends destroys the process groups of all engines in its process, so they end together.
    _here: ClassVar[list[Any]] = []
    _in_use: ClassVar[int] = 0

    def __init__(
        self,
        *,
        context: int = 2048,
        dtype: str | None = None,
        max_seqs: int = 128,
        gpu_memory: float = 0.85,
        own_process: bool = False,
        log: Path | None = None,
    ) -> None:
        self.log, self.own_process = log, own_process
        self.context, self.max_seqs, self.gpu_memory = context, max_seqs, gpu_memory
        self.dtype = dtype or fast_dtype()
        self._llm: Any = None
        self._loaded: str | None = None  # hash of the weights in the engine
        self._asleep = False

    def load(self, checkpoint: Checkpoint) -> bool:
        """Load these weights; True if the engine did not hold them before, so that they should be probed."""
        if self._loaded == checkpoint.weights_sha256 and self._llm is not None:
            self._wake()
            return False
        if self._llm is None:
            self._start(checkpoint.path)
        else:
            self._reload(checkpoint.path)
        self._loaded = checkpoint.weights_sha256
        return True

    def generate(self, requests: Sequence[Request]) -> list[list[Answer]]:
        """Answers to each request. The cache is emptied first, so the same requests give the same answers."""
        from vllm import SamplingParams

        self._llm.reset_prefix_cache()
        parameters = [
            SamplingParams(
                n=r.n, temperature=r.temperature, top_p=r.top_p, max_tokens=r.max_tokens, seed=r.seed, logprobs=0
            )
            for r in requests
        ]
        outputs = self._outputs([r.prompt_ids for r in requests], parameters)
        return [[_answer(o) for o in sorted(output.outputs, key=lambda o: o.index)] for output in outputs]

    def ask(self, requests: Sequence[GreedyRequest]) -> list[GreedyReply]:
        """The greedy answer to each request. The cache is emptied first, as in `generate`."""
        from vllm import SamplingParams
        from vllm.sampling_params import StructuredOutputsParams

        self._llm.reset_prefix_cache()
        parameters = [
            SamplingParams(
                temperature=0,
                max_tokens=i.max_tokens,
                logprob_token_ids=list(i.token_ids) or None,
                structured_outputs=StructuredOutputsParams(json=dict(i.schema)) if i.schema is not None else None,
            )
            for i in requests
        ]
        outputs = self._outputs([i.prompt_ids for i in requests], parameters)
        return [_reply(output.outputs[0], i.token_ids) for output, i in zip(outputs, requests, strict=True)]

    def prompt_logprobs(self, sequences: Sequence[Sequence[int]]) -> list[list[float]]:
        """log P of each token except the first of each sequence, as the engine computes it."""
        from vllm import SamplingParams

        outputs = self._outputs(sequences, SamplingParams(max_tokens=1, prompt_logprobs=0))
        return [
            [entry[token].logprob for entry, token in zip(o.prompt_logprobs[1:], ids[1:], strict=True)]
            for o, ids in zip(outputs, sequences, strict=True)
        ]

    def sleep(self) -> None:
        """Free the accelerator for the learner and move the weights to main memory. Does nothing on a CPU."""
        if self._llm is not None and not self._asleep and device().type == "cuda":
            self._llm.sleep(level=1)
            self._asleep = True

    def close(self) -> None:
        if self._llm is None:
            return
        if self.own_process:
            self._llm.llm_engine.engine_core.shutdown()
        else:
            Engine._in_use -= 1
        self._llm, self._loaded, self._asleep = None, None, False
        if not self.own_process and Engine._in_use == 0:
            from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

            while Engine._here:
                Engine._here.pop().llm_engine.engine_core.shutdown()
            cleanup_dist_env_and_memory()
        gc.collect()

    def _outputs(self, prompts: Sequence[Sequence[int]], parameters: Any) -> Any:
        return self._llm.generate([{"prompt_token_ids": list(ids)} for ids in prompts], parameters, use_tqdm=False)

    def _wake(self) -> None:
        if self._asleep:
            self._llm.wake_up()
            self._asleep = False

    def _reload(self, path: str) -> None:
        self._wake()
        try:
            self._llm.collective_rpc("reload_weights", kwargs={"weights_path": path})
            if device().type == "cpu":
                self._llm.apply_model(pack_vocabulary)
        except Exception as error:
            # A reload that fails halfway leaves tensors without memory, so only a new engine is safe. If the weights
            # are at fault, starting it raises.
            log.warning("reloading weights from %s failed (%s); starting a new engine", path, error)
            self.close()
            self._start(path)

    def _start(self, path: str) -> None:
        os.environ.update(vllm_environment(cache_gib=1))
        with native_stderr_to(self.log), processes(self.own_process):
            self._llm = self._new(path)
        if not self.own_process:
            Engine._in_use += 1
            Engine._here.append(self._llm)

    def _new(self, path: str) -> Any:
        try:
            from vllm import LLM
        except ImportError as error:
            raise EnvironmentProblem(
                f"vLLM cannot be imported ({error}); install it with: pip install 'sparring[cpu]' (or [gpu])"
            ) from error
        on_gpu = device().type == "cuda"
        # Seeded requests crash the CPU engine if a prefill is cut into chunks, so every prefill must fit into one step.
        special: dict[str, Any] = (
            {"enable_sleep_mode": True, "gpu_memory_utilization": self.gpu_memory}
            if on_gpu
            else {"enforce_eager": True, "enable_chunked_prefill": False, "block_size": 32}
        )
        context = min(self.context, positions(path))
        return LLM(
            path,
            dtype=self.dtype,
            max_model_len=context,
            max_num_seqs=self.max_seqs,
            max_num_batched_tokens=max(8192, context),
            enable_prefix_caching=True,
            distributed_executor_backend="uni",
            disable_log_stats=True,
            use_tqdm_on_load=False,
            trust_remote_code=False,
            **special,
        )


def pack_vocabulary(model: Any) -> None:
    """Pack the vocabulary's weights again after a reload on a CPU.

    vLLM multiplies by packed copies there. A reload packs only the weights that the checkpoint names, which do not
    include a tied output head. It would keep the head of the engine's first weights (vLLM 0.32; the probe detects it).
    """
    from vllm.model_executor.layers.vocab_parallel_embedding import VocabParallelEmbedding

    for layer in model.modules():
        if isinstance(layer, VocabParallelEmbedding):
            layer.quant_method.process_weights_after_loading(layer)


@contextmanager
def processes(own: bool) -> Iterator[None]:
    """A context in which an engine starts in a process of its own if `own`, else as configured."""
    if not own:
        yield
        return
    from vllm import envs

    before = os.environ.get("VLLM_ENABLE_V1_MULTIPROCESSING", "1")
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "1"
    envs.disable_envs_cache()  # an earlier engine has cached the old value
    try:
        yield
    finally:
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = before


@contextmanager
def native_stderr_to(log: Path | None) -> Iterator[None]:
    """Redirect file descriptor 2 to `log`, because native code warns there, past Python's logging and warnings."""
    if log is None:
        yield
        return
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stderr.flush()
    kept = os.dup(2)
    with log.open("ab") as file:
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)


def positions(path: str) -> int:
    config = json.loads((Path(path) / "config.json").read_text(encoding="utf-8"))
    return int(config.get("max_position_embeddings") or 1 << 30)


def _reply(output: Any, token_ids: Sequence[int]) -> GreedyReply:
    first = output.logprobs[0] if token_ids else {}
    logprobs = {token: first[token].logprob for token in token_ids}
    return GreedyReply(output.text, len(output.token_ids), output.finish_reason, logprobs)


def _answer(output: Any) -> Answer:
    if output.finish_reason not in ("stop", "length"):
        raise StepError(
            f"vLLM ended an answer with {output.finish_reason!r}; expected 'stop' or 'length'. Run it again"
        )
    ids = list(output.token_ids)
    logprobs = [entry[token].logprob for entry, token in zip(output.logprobs, ids, strict=True)]
    return Answer(output.text, ids, logprobs, output.finish_reason)
