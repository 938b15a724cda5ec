"""One live vLLM engine for a whole run: started once, and loaded with new weights after every update."""

import gc
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from sparring.loop.errors import StepError
from sparring.loop.hardware import device, fast_dtype
from sparring.loop.sampling.folder_facts import kind, positions
from sparring.loop.sampling.requests import Answer, GreedyReply, GreedyRequest, Request
from sparring.loop.sampling.vllm_start import cause, start
from sparring.loop.tokens import Template
from sparring.loop.types import Checkpoint

log = logging.getLogger("sparring.engine")


class Engine:
    """vLLM, in this process or, where that is needed (see vllm_start), in one of its own.

    `context` is the maximum number of tokens in a prompt with its answer. A model with fewer positions lowers it.
    The output of vLLM and its native code during the start goes to the file `log`, if there is one.
    """

    probed = True
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
        log: Path | None = None,
    ) -> None:
        self.log = log
        self.context, self.max_seqs, self.gpu_memory = context, max_seqs, gpu_memory
        self.dtype = dtype or fast_dtype()
        self._most = context
        self._llm: Any = None
        self._loaded: str | None = None  # hash of the weights in the engine
        self._kind: str | None = None  # of the model in the engine
        self._ends: list[int] = []  # the ids at which an answer stops
        self._own = False  # whether the engine is in a process of its own
        self._reloads = True  # whether new weights may go into the live engine
        self._asleep = False

    def load(self, checkpoint: Checkpoint) -> bool:
        """Load these weights; True if the engine did not hold them before, so that they should be probed."""
        if self._loaded == checkpoint.weights_sha256 and self._llm is not None:
            self._wake()
            return False
        if self._llm is not None and self._reloads and self._kind == kind(checkpoint.path):
            self._reload(checkpoint.path)
        else:
            self._start(checkpoint.path)
        self._loaded = checkpoint.weights_sha256
        return True

    def restart(self, checkpoint: Checkpoint) -> None:
        """Start a new engine with these weights, now and at every later load, because reloading left others."""
        if self._reloads:
            log.warning("vLLM does not reload this model faithfully; every new set of weights starts a new engine")
        self._reloads = False
        self._start(checkpoint.path)
        self._loaded = checkpoint.weights_sha256

    def generate(self, requests: Sequence[Request]) -> list[list[Answer]]:
        """Answers to each request. The cache is emptied first, so the same requests give the same answers."""
        from vllm import SamplingParams

        self._llm.reset_prefix_cache()
        parameters = [
            SamplingParams(
                n=r.n,
                temperature=r.temperature,
                top_p=r.top_p,
                max_tokens=r.max_tokens,
                seed=r.seed,
                logprobs=0,
                stop_token_ids=self._ends,
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
                stop_token_ids=self._ends,
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
        if self._own:
            self._llm.llm_engine.engine_core.shutdown()
        else:
            Engine._in_use -= 1
        self._llm, self._loaded, self._asleep = None, None, False
        if not self._own and Engine._in_use == 0:
            from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

            while Engine._here:
                Engine._here.pop().llm_engine.engine_core.shutdown()
            cleanup_dist_env_and_memory()
        gc.collect()

    def _outputs(self, prompts: Sequence[Sequence[int]], parameters: Any) -> Any:
        tokens = [{"prompt_token_ids": list(ids)} for ids in prompts]
        try:
            return self._llm.generate(tokens, parameters, use_tqdm=False)
        except Exception as error:
            self.close()  # what it holds is unknown, so the next load starts a new one
            raise StepError(
                f"vLLM failed while it computed: {cause(error)}. Expected an answer to each prompt. If it fails again, "
                "set sample.dtype, or sample.engine: transformers, which is slower"
            ) from error

    def _wake(self) -> None:
        if self._asleep:
            self._llm.wake_up()
            self._asleep = False

    def _reload(self, path: str) -> None:
        self._wake()
        try:
            self._llm.collective_rpc("reload_all_weights", args=(path,))
        except Exception as error:
            # A reload that fails halfway leaves tensors without memory, so only a new engine is safe. If the weights
            # are at fault, starting it raises.
            log.warning("reloading weights from %s failed (%s); starting a new engine", path, error)
            self._start(path)

    def _start(self, path: str) -> None:
        """Start an engine in place of the live one, if there is one."""
        self.close()
        self.context, self._kind = min(self._most, positions(path)), kind(path)
        self._ends = sorted(Template.of(path).end_ids)
        self._llm, self._own = start(
            path,
            apart=not self._reloads,  # a process that ends returns all its memory
            log=self.log,
            gpu_memory=self.gpu_memory,
            dtype=self.dtype,
            max_model_len=self.context,
            max_num_seqs=self.max_seqs,
            max_num_batched_tokens=max(8192, self.context),
        )
        if not self._own:
            Engine._in_use += 1
            Engine._here.append(self._llm)


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
