"""Engines that compute the scores of encoded answers: transformers in this process, or vLLM's pooling runner."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch

from sparring.judges.reward.backbone import classifies, read_config
from sparring.judges.reward.encoding import Encoded, is_encoder
from sparring.judges.reward.facts import read_facts
from sparring.judges.reward.model import HEAD, RewardModel
from sparring.loop.errors import EnvironmentProblem
from sparring.loop.hardware import device, vllm_environment


class Engine(Protocol):
    def scores(self, rows: Sequence[Encoded]) -> list[list[float]]:
        """Raw scores in order: per row, a list with one value per member."""
        ...

    def sleep(self) -> None:
        """Free the accelerator until the next scores."""
        ...


class TransformersEngine:
    """Scores batches of up to `token_budget` padded tokens. The model is on the accelerator only while it scores."""

    def __init__(self, folder: Path, dtype: str, token_budget: int | None) -> None:
        self._model = RewardModel.load(folder, getattr(torch, dtype))
        self._token_budget = token_budget

    def scores(self, rows: Sequence[Encoded]) -> list[list[float]]:
        self._model.to(device())
        scores: list[list[float]] = [[]] * len(rows)
        with torch.inference_mode():
            for micro, batch in self._model.batches(rows, self._token_budget):
                for i, value in zip(micro, self._model(**batch).tolist(), strict=True):
                    scores[i] = value
        return scores

    def sleep(self) -> None:
        self._model.to("cpu")
        if torch.cuda.is_available():
            torch.cuda.empty_cache()  # torch would keep the memory that the sampler needs


class VllmEngine:
    """A *ForSequenceClassification with one label in vLLM. Its scores are logits: vLLM would apply a sigmoid."""

    def __init__(self, folder: Path, dtype: str, max_length: int, gpu_memory: float = 0.4) -> None:
        os.environ.update(vllm_environment(cache_gib=1))
        try:
            from vllm import LLM
        except ImportError as error:
            raise EnvironmentProblem(
                f"vLLM cannot be imported ({error}); install it with: pip install 'sparring[cpu]' (or [gpu])"
            ) from error
        on_gpu = device().type == "cuda"
        special: dict[str, Any] = (
            {"enable_sleep_mode": True, "gpu_memory_utilization": gpu_memory} if on_gpu else {"enforce_eager": True}
        )
        self._asleep = False
        self._llm = LLM(
            str(folder),
            runner="pooling",
            dtype=dtype,
            max_model_len=max_length,
            config_format="hf",  # where a Mistral repository holds its own formats beside, vLLM prefers those
            load_format="hf",
            tokenizer_mode="hf",
            distributed_executor_backend="uni",
            disable_log_stats=True,
            use_tqdm_on_load=False,
            trust_remote_code=False,
            **special,
        )

    def scores(self, rows: Sequence[Encoded]) -> list[list[float]]:
        from vllm import PoolingParams

        if self._asleep:
            self._llm.wake_up()
            self._asleep = False
        prompts = [{"prompt_token_ids": list(row.ids)} for row in rows]
        raw = PoolingParams(use_activation=False)
        return [o.outputs.probs for o in self._llm.classify(prompts, pooling_params=raw, use_tqdm=False)]

    def sleep(self) -> None:
        if device().type == "cuda" and not self._asleep:
            self._llm.sleep(level=1)
            self._asleep = True

    def close(self) -> None:
        """Shut down at the end of the process: this also ends what vLLM shares between engines."""
        from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

        self._llm.llm_engine.engine_core.shutdown()
        cleanup_dist_env_and_memory()


def vllm_can(folder: Path, end: int) -> bool:
    """Whether vLLM computes the model's scores, which it reads at the last token, `end`.

    A third party's model whose padding is that token was trained to be read before it (see RewardModel.load).
    """
    config = read_config(folder)
    facts = read_facts(folder)
    if not classifies(config) or is_encoder(config) or (folder / HEAD).exists():
        return False
    return config.num_labels == 1 and (facts is not None or config.get_text_config().pad_token_id != end)
