"""What runs beside vLLM's weights, in its process: vLLM loads these classes by name."""

import multiprocessing
import os
import threading
from typing import Any

import torch
from vllm.config import VllmConfig
from vllm.model_executor.layers.vocab_parallel_embedding import VocabParallelEmbedding
from vllm.sampling_params import SamplingParams
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor

from sparring.loop.sampling import vllm_weights  # noqa: F401  registers the load format in the worker's process
from sparring.loop.sampling.folder_facts import unknown_ids


class Reloading:
    """A worker extension: its methods are called on the worker, which holds `model_runner` and `reload_weights`."""

    model_runner: Any

    def reload_all_weights(self, path: str) -> None:
        """Load the weights in the folder `path`, and every copy that vLLM keeps of them.

        On a CPU, vLLM 0.32 multiplies by packed copies, and a reload misses two kinds of them. The packed experts of a
        mixture are overwritten by unpacked ones, because packing is left to the kernel's first set-up: so the kernel
        is dropped and set up again. The packed vocabulary stays old if the output head is tied, because the checkpoint
        does not name the head: so it is packed again. (A GPU packs nothing, and its graphs need the kernels to stay.)
        """
        model = self.model_runner.get_model()
        packed = next(model.parameters()).device.type == "cpu"
        if packed:
            for layer in model.modules():
                if getattr(getattr(layer, "quant_method", None), "moe_kernel", None) is not None:
                    layer.quant_method.moe_kernel = None
        self.reload_weights(weights_path=path)  # type: ignore[attr-defined]
        if packed:
            for layer in model.modules():
                if isinstance(layer, VocabParallelEmbedding):
                    layer.quant_method.process_weights_after_loading(layer)

    def end_with_parent(self) -> None:
        """End this process, of the engine alone, as soon as the process that started it has ended, however it ended."""
        threading.Thread(target=_follow, daemon=True).start()


def _follow() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


class KnownTokens(LogitsProcessor):  # type: ignore[misc]
    """Samples no id that the tokenizer cannot read. The log-probs returned are those before it."""

    def __init__(self, vllm_config: VllmConfig, device: torch.device, is_pin_memory: bool) -> None:
        self._unknown = torch.tensor(unknown_ids(vllm_config.model_config.model), device=device)

    @classmethod
    def validate_params(cls, sampling_params: SamplingParams) -> None:
        pass

    def is_argmax_invariant(self) -> bool:
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        pass

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        return logits.index_fill_(1, self._unknown, float("-inf"))
