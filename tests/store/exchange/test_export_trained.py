"""TRL's trainers train on what is exported, unchanged."""

import json
import math
from pathlib import Path
from typing import Any

import datasets
import pytest

from sparring.store.exchange import Asked, Wanted, export, import_rows
from tests.helpers.kept_store import KeptStore
from tests.helpers.tiny import build_tiny_model

pytestmark = pytest.mark.slow

REASON = "TRL is the peer of these exports; it comes with the dev extra"


def test_trl_trains_on_an_exported_folder_as_it_is(tmp_path: Path) -> None:
    trl = pytest.importorskip("trl", reason=REASON)
    pairs = [{"prompt": f"Bird {i}?", "chosen": "a wren", "rejected": "no", "score_chosen": 2.0} for i in range(4)]
    labels = [{"prompt": f"Fish {i}?", "completion": "a cod" if i % 2 else "no", "label": i % 2 == 1} for i in range(4)]
    store = KeptStore(tmp_path / "s.duckdb")
    for name, given in (("pairs", pairs), ("labels", labels)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in given))
        import_rows(store, Asked((str(tmp_path / f"{name}.jsonl"),), name, "MIT"))
        export(store, Wanted(name, str(tmp_path / name), name))  # type: ignore[arg-type]
    store.close()
    model = build_tiny_model(tmp_path / "model")
    settings: dict[str, Any] = {"max_steps": 1, "per_device_train_batch_size": 4, "report_to": [], "disable_tqdm": True}
    settings |= {"output_dir": str(tmp_path / "out"), "save_strategy": "no", "use_cpu": True, "bf16": False}

    def trained(trainer: Any, config: Any, what: str) -> tuple[Any, float]:
        given = datasets.load_dataset(str(tmp_path / what), split="train", cache_dir=str(tmp_path / "cache"))
        made = trainer(model=str(model), args=config(**settings), train_dataset=given)
        return made, made.train().training_loss

    dpo, loss = trained(trl.DPOTrainer, trl.DPOConfig, "pairs")
    assert loss == pytest.approx(math.log(2), abs=1e-4)  # before the first step the policy is its reference
    assert _read(dpo, "prompt_ids", "chosen_ids", "rejected_ids") == [
        (f"<|im_start|>user\nBird {i}?<|im_end|>\n<|im_start|>assistant\n", "a wren<|im_end|>\n", "no<|im_end|>\n")
        for i in range(4)
    ]
    kto, loss = trained(trl.KTOTrainer, trl.KTOConfig, "labels")
    assert loss == pytest.approx(0.5, abs=1e-4)
    assert kto.train_dataset["label"] == [False, True, False, True]


def _read(trainer: Any, *columns: str) -> list[tuple[str, ...]]:
    """What it learns from, as text."""
    decode = trainer.processing_class.decode
    return [tuple(decode(row[column]) for column in columns) for row in trainer.train_dataset]
