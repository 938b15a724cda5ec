"""The reward implied by a policy: how much more probable an answer is under it than under its reference.

Direct preference optimisation makes a policy whose reward is beta * log(pi(y|x) / pi_ref(y|x)), up to a constant of the
prompt (arXiv:2305.18290, eq. 5). So a policy that has learned from preferences is a judge of the next answers.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sparring.loop import traits
from sparring.loop.errors import ConfigError, NotANumber
from sparring.loop.judgements import Pointwise, score_id, unjudged
from sparring.loop.types import Completion, Group, Judgement, Prompt, digest

if TYPE_CHECKING:
    from sparring.loop.learning.batches import Row
    from sparring.loop.tokens import Template

CHUNK = 64  # judgements per transaction

Dtype = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class _Models:
    policy: Any
    reference: Any
    template: "Template"
    context: int  # tokens that both models have positions for


@traits.judge(models=("policy", "reference"), canaries=True)
class ImplicitJudge(Pointwise):
    """Scores each completion alone: beta * (log pi(y|x) - log pi_ref(y|x)), in nats times beta.

    `length_normalised` divides by the number of the completion's tokens. Scores of different prompts cannot be
    compared: each prompt has its own constant. The models must share one vocabulary. The policy's chat template formats
    the prompt.

    The sampled tokens are scored if the policy's tokenizer decodes them to the completion's text. Otherwise, as for
    answers from a data set or from another model family, the text is tokenised, with the end token unless it was cut
    off. A completion without tokens, or too long for a model, gets value None.

    The default float32 is slower than bfloat16, whose rounding is as large as the change of one round of learning. The
    models are on the GPU only while they judge. Raises ConfigError for options and models that do not fit, DataError
    for a folder without a model, and NotANumber for broken weights.
    """

    def __init__(
        self,
        *,
        policy: str,
        reference: str,
        beta: float = 0.1,
        length_normalised: bool = False,
        token_budget: int | None = None,
        dtype: Dtype = "float32",
    ) -> None:
        if beta <= 0:
            raise ConfigError(f"judge implicit: beta is {beta}; expected a number above 0")
        if token_budget is not None and token_budget < 1:
            raise ConfigError(f"judge implicit: token_budget is {token_budget}; expected at least 1 token")
        if dtype not in ("float32", "bfloat16"):
            raise ConfigError(f"judge implicit: dtype is {dtype!r}; expected float32 or bfloat16")
        self._names = (policy, reference)
        self._beta, self._length_normalised = beta, length_normalised
        self._token_budget, self._dtype = token_budget, dtype

    @cached_property
    def name(self) -> str:
        """ "implicit-" and a digest of both models' weights and of the options that shape a score."""
        return f"implicit-{digest([*self.weights, self._beta, self._length_normalised, self._dtype], 4)}"

    @cached_property
    def weights(self) -> Sequence[str]:  # hashed when first asked for
        from sparring.loop.learning.checkpoint import weights_sha256

        return tuple(weights_sha256(folder) for folder in self._folders)

    def judge(self, groups: Sequence[Group]) -> Iterator[list[Judgement]]:
        unscored = [(g.prompt, c) for g in groups for c in unjudged(g)]
        if not unscored:
            return
        from sparring.loop.hardware import device

        models = self._models
        try:
            for model in (models.policy, models.reference):
                model.to(device())
            scored = self._judgements(unscored)
            while chunk := list(itertools.islice(scored, CHUNK)):
                yield chunk
        finally:
            for model in (models.policy, models.reference):
                model.to("cpu")

    @cached_property
    def _folders(self) -> tuple[Path, Path]:
        from sparring.loop.models import resolve_model

        policy, reference = map(resolve_model, self._names)
        return policy, reference

    @cached_property
    def _models(self) -> _Models:
        import torch

        from sparring.loop.learning.checkpoint import load_model
        from sparring.loop.tokens import Template

        ours, theirs = (Template.of(str(folder)) for folder in self._folders)
        if ours.tokenizer.get_vocab() != theirs.tokenizer.get_vocab():
            raise ConfigError(
                f"judge implicit: {self._names[0]} and {self._names[1]} have different vocabularies; expected a policy "
                "and the reference that it was trained from"
            )
        policy, reference = (load_model(folder, torch.device("cpu")) for folder in self._folders)
        context = min(getattr(m.config, "max_position_embeddings", 2**31) for m in (policy, reference))
        return _Models(policy, reference, ours, context)

    def _judgements(self, unscored: Sequence[tuple[Prompt, Completion]]) -> Iterator[Judgement]:
        from sparring.loop.hardware import default_token_budget
        from sparring.loop.learning.batches import micro_batches

        rows: list[Row] = []
        completions: list[Completion] = []
        for prompt, completion in unscored:
            row = self._row(prompt, completion)
            if isinstance(row, str):
                yield self._judgement(completion, None, row)
            else:
                rows.append(row)
                completions.append(completion)
        budget = self._token_budget or default_token_budget()
        for micro in micro_batches(range(len(rows)), [row.length for row in rows], budget):
            for i, value in zip(micro, self._scores([rows[i] for i in micro]), strict=True):
                yield self._judgement(completions[i], value)

    def _row(self, prompt: Prompt, completion: Completion) -> "Row | str":
        """The tokens of a prompt and completion, or why they cannot be scored."""
        from sparring.loop.learning.batches import Row
        from sparring.loop.tokens import RefusedPrompt

        try:
            ids = self._models.template.prompt_ids(prompt.messages)
        except RefusedPrompt as error:
            return str(error)
        tokens = tokens_of(completion, self._models.template)
        if not tokens:
            return "no tokens: the completion is empty and was cut off"
        if len(ids) + len(tokens) > self._models.context:
            return f"too long: {len(ids)} + {len(tokens)} tokens, the models have {self._models.context} positions"
        return Row(ids, (tokens,))

    def _scores(self, rows: Sequence["Row"]) -> list[float]:
        """Both models get the same batch shapes, so a policy that equals its reference scores exactly 0."""
        import torch

        from sparring.loop.hardware import autocast
        from sparring.loop.learning.forward_choice import batch_for
        from sparring.loop.learning.logprobs import completion_logprobs

        models = self._models.policy, self._models.reference
        with torch.no_grad(), autocast(self._dtype):
            policy, reference = (completion_logprobs(model, batch_for(model, rows)) for model in models)
        ratio = self._beta * (policy.double() - reference.double())
        if not torch.isfinite(ratio).all():
            raise NotANumber(
                f"judge implicit: a log-ratio of {self._names[0]} and {self._names[1]} is not finite; expected weights "
                "that give finite numbers: look for a diverged update among the policy's rounds"
            )
        lengths = torch.tensor([len(row.completions[0]) for row in rows])
        scores: list[float] = (ratio / lengths.to(ratio) if self._length_normalised else ratio).tolist()
        return scores

    def _judgement(self, completion: Completion, value: float | None, rationale: str = "") -> Judgement:
        return Judgement(score_id(self.name, completion), self.name, completion.id, None, "", "", 0, value, rationale)


def tokens_of(completion: Completion, template: "Template") -> list[int]:
    """The completion's sampled tokens if this tokenizer decodes them to its text; else its text, tokenised."""
    sampled, tokenizer = list(completion.token_ids), template.tokenizer
    if sampled and _letters(tokenizer.decode(sampled, skip_special_tokens=True)) == _letters(completion.text):
        return sampled
    tokens = template.answer_ids(completion.text)
    return tokens if completion.finish_reason == "stop" else tokens[:-1]


def _letters(text: str) -> str:
    """The text without what engines and tokenizers write differently: U+FFFD for bytes not in UTF-8, and spaces."""
    return "".join(text.replace("\ufffd", "").split())
