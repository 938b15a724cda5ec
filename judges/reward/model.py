"""A reward model: a transformers backbone, a pooling of its hidden states, and a head that scores them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sparring.judges.reward.adapters import add_adapters, split_state, use_adapter
from sparring.judges.reward.backbone import as_classification, classifies, load_backbone, load_foreign, width
from sparring.judges.reward.base import Head
from sparring.judges.reward.encoding import Encoded, Encoding, is_encoder
from sparring.judges.reward.facts import Facts, Pooling, read_facts
from sparring.judges.reward.heads import LinearHead, OwnHead, make_head
from sparring.judges.reward.tensors import Batch, answer_logprobs, collate, pool
from sparring.loop.errors import ConfigError, DataError
from sparring.loop.hardware import default_token_budget
from sparring.loop.learning.batches import micro_batches
from sparring.loop.learning.checkpoint import save_model

FOREIGN = "foreign"  # the head of a third party's model
HEAD, ADAPTERS = "head.safetensors", "adapters.safetensors"


class RewardModel(nn.Module):
    """Scores (B, M) of B answers by M members. A member is a column of the head, under its own adapter if it has one.

    Batches are padded on the right (see `collate`). The attention mask gives the last token, never the id of the
    padding, which is often the end token's. Buffers are state like parameters: a training that resumes must keep both.
    The backbone may compute in bfloat16 (autocast, or its weights). Heads always compute in float32.
    """

    def __init__(self, backbone: Any, head: Head, facts: Facts, lm_head: nn.Module | None = None) -> None:
        super().__init__()
        if head.per_token and facts.pooling != "last":
            raise ConfigError(f"head {facts.head!r} has pooling {facts.pooling!r}; expected 'last', or another head")
        self.backbone, self.head, self.facts, self.lm_head = backbone, head, facts, lm_head
        self.pooling, self.layer = facts.pooling, facts.layer
        self.max_length, self.members, self.adapters = facts.max_length, facts.members, facts.adapters
        self.causal = not is_encoder(backbone.config)
        self.unread: int | None = None  # a real token whose position is not read: see `_foreign`
        self.typed = (getattr(backbone.config, "type_vocab_size", None) or 0) > 1

    @classmethod
    def create(
        cls,
        folder: str | Path,
        head: str = "linear",
        head_options: Mapping[str, Any] | None = None,
        *,
        pooling: Pooling | None = None,
        layer: int = -1,
        max_length: int | None = None,
        adapters: int = 0,
        adapter_options: Mapping[str, Any] | None = None,
        lm_head: bool = False,
        seed: int = 0,
    ) -> "RewardModel":
        """A fresh head on the backbone in `folder`: a language model's, an encoder's, or a reward model's.

        `pooling` None is "last" for a causal model and "mean" for an encoder. `layer` is the number of blocks to keep
        (see load_backbone). `max_length` None: as many tokens as the model takes. `lm_head` keeps the language-model
        head for `answer_logprobs`; it is trained but not saved.
        """
        folder = Path(folder)
        backbone, kept = load_backbone(folder, layer=layer, lm_head=lm_head)
        scorer = make_head(head, width(backbone.config), seed, head_options or {})
        facts = Facts(
            head=head,
            head_options=dict(head_options or {}),
            pooling=pooling or ("mean" if is_encoder(backbone.config) else "last"),
            layer=layer,
            max_length=Encoding(folder, max_length).max_length,
            members=scorer.members,
            seed=seed,
        )
        model = cls(backbone, scorer, facts, kept)
        if adapters:
            model.add_adapters(adapters, adapter_options)
        return model.eval()

    @classmethod
    def load(cls, folder: str | Path, dtype: torch.dtype = torch.float32) -> "RewardModel":
        """A model written by `save`, or a third party's model with one scalar head. `dtype` is the backbone's.

        Raises DataError for a folder without a reward model in safetensors.
        """
        folder = Path(folder)
        facts = read_facts(folder)
        if facts is None or not (folder / HEAD).exists():
            return cls._foreign(folder, facts, dtype).eval()
        backbone, _ = load_backbone(folder, dtype=dtype)
        head = make_head(facts.head, width(backbone.config), facts.seed, facts.head_options)
        head.load_state_dict(load_file(folder / HEAD))
        model = cls(backbone, head, facts)
        if facts.adapters:
            add_adapters(backbone, facts.adapters, facts.seed, facts.adapter_options)
            backbone.load_state_dict(load_file(folder / ADAPTERS), strict=False)
        return model.eval()

    @classmethod
    def _foreign(cls, folder: Path, facts: Facts | None, dtype: torch.dtype) -> "RewardModel":
        backbone, weight, bias = load_foreign(folder, dtype)
        if weight is None:
            return cls(backbone, OwnHead(), Facts(head=FOREIGN, pooling="own"))
        model = cls(backbone, LinearHead.of(weight, bias), facts or Facts(head=FOREIGN))
        if facts is None and classifies(backbone.config):
            # As in transformers' own forward: if padding and end are one token, the score was trained before the end.
            model.unread = backbone.config.get_text_config().pad_token_id
        return model

    def add_adapters(self, count: int, options: Mapping[str, Any] | None = None) -> None:
        """Add one LoRA adapter per member, and freeze the backbone's own weights (2401.16635).

        In the paper, backbone and heads are trained together first: adapters alone do not perform well.
        """
        if self.adapters or count != self.members or count < 2:
            raise ConfigError(
                f"{count} adapters for a model with {self.members} members and {self.adapters} adapters; expected "
                "as many as members, added once: head 'multi' with the option members"
            )
        add_adapters(self.backbone, count, self.facts.seed, options or {})
        self.adapters = count
        self.facts = replace(self.facts, adapters=count, adapter_options=dict(options or {}))

    def save(self, folder: Path, tokenizer_from: Path) -> str:
        """Write to `folder`, whole or not at all, with the tokenizer of `tokenizer_from`; returns weights_sha256."""
        if self.facts.head == FOREIGN:
            raise ConfigError(
                "a third party's reward model cannot be saved; copy its folder, or create one on its backbone"
            )
        text = self.backbone.config.get_text_config()
        if text.pad_token_id == Encoding(tokenizer_from).end:
            # transformers reads the score before padding, which it finds by id: it would read before the end.
            text.pad_token_id = None
        return save_model(self, tokenizer_from, folder)

    def save_pretrained(self, folder: Path) -> None:
        """Write weights and reward.json.

        A linear head at the end of a causal model is written as a *ForSequenceClassification, which transformers and
        vLLM can load. Any other model is written as the backbone with head.safetensors beside it.
        """
        self.facts.write(folder)
        if isinstance(self.head, LinearHead) and self.causal and self.pooling == "last" and not self.adapters:
            plain = as_classification(self.backbone, self.head.score)
            if plain is not None:
                plain.save_pretrained(folder)
                return
        own, adapters = split_state(self.backbone)
        self.backbone.save_pretrained(folder, state_dict=own)
        save_file({name: tensor.contiguous() for name, tensor in self.head.state_dict().items()}, folder / HEAD)
        if adapters:
            save_file(adapters, folder / ADAPTERS)

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def set_scale(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Store each member's mean and std on a fixed set with the model. Aggregators use them; scores stay raw."""
        if len(mean) != self.members or len(std) != self.members or not all(s > 0 for s in std):
            raise DataError(
                f"scales {list(mean)} and {list(std)} for {self.members} members; expected one each, std > 0"
            )
        self.facts = replace(self.facts, mean=tuple(map(float, mean)), std=tuple(map(float, std)))

    def collate(self, rows: Sequence[Encoded]) -> Batch:
        """A batch on the model's device. Any id may pad, because the mask marks the real tokens."""
        return collate(rows, getattr(self.backbone.config.get_text_config(), "pad_token_id", None) or 0, self.device)

    def batches(self, rows: Sequence[Encoded], token_budget: int | None) -> Iterator[tuple[list[int], Batch]]:
        """Micro-batches of all rows, each with its rows' numbers."""
        budget = token_budget or default_token_budget()
        for micro in micro_batches(range(len(rows)), list(map(len, rows)), budget):
            yield micro, self.collate([rows[i] for i in micro])

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """Raw scores (B, M) in float32. With adapters, member i scores under adapter i."""
        if not self.adapters:
            return self.score(self.features(input_ids, attention_mask, token_type_ids))
        batch = input_ids, attention_mask, token_type_ids
        columns = [self.score(self.features(*batch, adapter=i))[:, i] for i in range(self.members)]
        return torch.stack(columns, dim=1)

    def score(self, features: Tensor) -> Tensor:
        """Pooled features (B, D) to raw scores (B, M), in float32 whatever autocast is on."""
        with torch.autocast(features.device.type, enabled=False):
            scores: Tensor = self.head(features.float())
            return scores

    def features(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None, adapter: int = 0
    ) -> Tensor:
        """Pooled hidden states (B, D) in float32: the input of the head, computed once for a frozen backbone."""
        tokens = self.tokens(input_ids, attention_mask, token_type_ids, adapter)
        if self.pooling == "own":
            return tokens
        shown = attention_mask if self.unread is None else attention_mask * (input_ids != self.unread)
        return self.pool(tokens, shown, token_type_ids)

    def tokens(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None, adapter: int = 0
    ) -> Tensor:
        """Hidden states (B, T, D) in float32, under one adapter if there are any."""
        if self.adapters:
            use_adapter(self.backbone, adapter)
        batch: dict[str, Any] = {"input_ids": input_ids, "attention_mask": attention_mask}
        if self.typed:
            batch["token_type_ids"] = token_type_ids
        if self.causal:
            batch["use_cache"] = False
        out = self.backbone(**batch)
        hidden: Tensor = out if self.pooling == "own" else out.last_hidden_state
        return hidden.float()

    def pool(self, tokens: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """(B, T, D) to (B, D)."""
        return pool(self.pooling, tokens, attention_mask, token_type_ids)

    def answer_logprobs(self, tokens: Tensor, input_ids: Tensor, token_type_ids: Tensor) -> Tensor:
        """(B,): log P of each answer, in nats, under the kept language-model head, from `tokens` of the last layer."""
        if self.lm_head is None:
            raise ConfigError("the model has no language-model head; create it with lm_head=True")
        cap = getattr(self.backbone.config.get_text_config(), "final_logit_softcapping", None)
        return answer_logprobs(self.lm_head, tokens, input_ids, token_type_ids, cap)
