"""Language models that are part of a multimodal family, such as Qwen 3.5: a checkpoint keeps the whole model's form."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file

from sparring.loop.errors import StepError
from sparring.loop.learning.weight_sets import INDEX, one_set

PARTS = {"model", "language_model", "text_model"}  # how families call what leads to their language model
HEAD, EMBEDDINGS = "lm_head.weight", "embed_tokens.weight"


def is_part(model: Any, folder: Path) -> bool:
    """Whether the model is the language model alone of the family in `folder`, from which it was loaded."""
    config = getattr(model, "config", None)
    kind = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
    return config is not None and config.model_type != kind


def write_whole(folder: Path, like: Path) -> None:
    """Turn `folder`, where the language model alone was saved, into the whole model in `like` with these weights.

    Files, weights' names and config are those of `like`, so that whatever loads one loads the other. Raises StepError
    if a weight has no place in it.
    """
    alone = folder / "alone"
    alone.mkdir()
    for path in [*folder.glob("*.safetensors*"), folder / "config.json"]:
        path.rename(alone / path.name)
    learned = {_place(name): (path, name) for path, name in _weights(alone)}
    if EMBEDDINGS in learned:
        learned.setdefault(HEAD, learned[EMBEDDINGS])  # tied, but a family may keep both
    placed: set[str] = set()
    for source in (like / name for name in _set(like)):
        placed |= _write(source, folder / source.name, learned)
    if lost := sorted(set(learned) - placed - {HEAD}):
        raise StepError(
            f"{like} has no place for {len(lost)} learned weights, such as {lost[0]}; expected the names of its "
            "language model there: choose another policy.model, such as the language model alone"
        )
    if (like / INDEX).exists():
        shutil.copy2(like / INDEX, folder / INDEX)
    _write_config(folder, like, json.loads((alone / "config.json").read_text(encoding="utf-8")).get("dtype"))
    shutil.rmtree(alone)


def _write(source: Path, to: Path, learned: dict[str, tuple[Path, str]]) -> set[str]:
    """Write one file of the whole model, with what was learned in its place; the places that were written."""
    with safe_open(source, "pt") as file:
        names = list(file.keys())
        tensors = {}
        for name in names:
            path, own = learned.get(_place(name), (source, name))
            with safe_open(path, "pt") as other:
                tensors[name] = other.get_tensor(own)
        save_file(tensors, to, metadata=file.metadata())
    return {_place(name) for name in names}


def _write_config(folder: Path, like: Path, dtype: str | None) -> None:
    config = json.loads((like / "config.json").read_text(encoding="utf-8"))
    for section in (config, config.get("text_config", {})):
        section.pop("torch_dtype", None)
        section["dtype"] = dtype
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _place(name: str) -> str:
    """A weight's name without the parts that lead to the language model, which differ among classes."""
    parts = name.split(".")
    while parts[0] in PARTS:
        parts.pop(0)
    return ".".join(parts)


def _weights(folder: Path) -> Iterator[tuple[Path, str]]:
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118  (safe_open is no mapping)
                yield path, name


def _set(folder: Path) -> list[str]:
    return one_set(sorted(path.name for path in folder.glob("*.safetensors")), folder)
