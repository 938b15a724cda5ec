"""One live vLLM engine for a whole run: started once, given new weights after every update."""

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
    """vLLM in this process. `context` is the most tokens a prompt and its answer may have together.

    What vLLM and its native code print while starting goes to the file `log`, where one is given. On a GPU only one
    engine of a process can sleep, so a second one needs a process of its own.
    """

    # An engine that ends takes down the process groups of all that are in its process: so they end together.
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
        """Make the engine hold these weights; True when it did not before (so they should be probed)."""
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
        prompts = [{"prompt_token_ids": list(r.prompt_ids)} for r in requests]
        outputs = self._llm.generate(prompts, parameters, use_tqdm=False)
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
        prompts = [{"prompt_token_ids": list(i.prompt_ids)} for i in requests]
        outputs = self._llm.generate(prompts, parameters, use_tqdm=False)
        return [_told(output.outputs[0], i.token_ids) for output, i in zip(outputs, requests, strict=True)]

    def prompt_logprobs(self, sequences: Sequence[Sequence[int]]) -> list[list[float]]:
        """log P of each token but the first of each sequence, as the engine computes it."""
        from vllm import SamplingParams

        prompts = [{"prompt_token_ids": list(ids)} for ids in sequences]
        outputs = self._llm.generate(prompts, SamplingParams(max_tokens=1, prompt_logprobs=0), use_tqdm=False)
        return [
            [entry[token].logprob for entry, token in zip(o.prompt_logprobs[1:], ids[1:], strict=True)]
            for o, ids in zip(outputs, sequences, strict=True)
        ]

    def sleep(self) -> None:
        """Free the accelerator for the learner; weights wait in main memory. On a CPU there is nothing to free."""
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
            # Whatever it was, a reload that fails half-way leaves tensors without memory: only a new engine is safe,
            # and where the weights are at fault, starting it raises.
            log.warning("reloading weights from %s failed (%s); starting a new engine", path, error)
            self.close()
            self._start(path)

    def _start(self, path: str) -> None:
        os.environ.update(vllm_environment(cache_gib=1) | os.environ)
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
        # Seeded requests crash the CPU engine when a prefill is cut in chunks: every prefill must fit one step.
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

    vLLM multiplies by packed copies there. A reload packs anew what the checkpoint names, which a tied output head is
    not: it would go on with the head of the engine's first weights (seen with vLLM 0.32; the probe tells).
    """
    from vllm.model_executor.layers.vocab_parallel_embedding import VocabParallelEmbedding

    for layer in model.modules():
        if isinstance(layer, VocabParallelEmbedding):
            layer.quant_method.process_weights_after_loading(layer)


@contextmanager
def processes(own: bool) -> Iterator[None]:
    """Have the engine that starts in this block run in a process of its own, or leave that as it is."""
    if not own:
        yield
        return
    from vllm import envs

    before = os.environ.get("VLLM_ENABLE_V1_MULTIPROCESSING", "1")
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "1"
    envs.disable_envs_cache()  # an engine that is here has fixed what it read
    try:
        yield
    finally:
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = before


@contextmanager
def native_stderr_to(log: Path | None) -> Iterator[None]:
    """Send file descriptor 2 to `log`: native code warns there, past Python's logging and warnings."""
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
    config = json.loads((Path(path) / "config.json").read_text())
    return int(config.get("max_position_embeddings") or 1 << 30)


def _told(output: Any, token_ids: Sequence[int]) -> GreedyReply:
    first = output.logprobs[0] if token_ids else {}
    logprobs = {token: first[token].logprob for token in token_ids}
    return GreedyReply(output.text, len(output.token_ids), output.finish_reason, logprobs)


def _answer(output: Any) -> Answer:
    if output.finish_reason not in ("stop", "length"):
        raise StepError(f"vLLM ended an answer with {output.finish_reason!r}; wanted 'stop' or 'length'. Run it again")
    ids = list(output.token_ids)
    logprobs = [entry[token].logprob for entry, token in zip(output.logprobs, ids, strict=True)]
    return Answer(output.text, ids, logprobs, output.finish_reason)
