"""A language model as a judge: it compares two answers in both orders, or scores one under a rubric."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from inspect import Signature, signature
from typing import Any, Literal, TypeVar, get_args

from sparring.judges.llm_client import HasClient, LLMClient, Question, Reply
from sparring.judges.templates import PromptFile, quoted
from sparring.judges.verdicts import Verdict, json_score, json_verdict, label_verdict, score_schema, verdict_schema
from sparring.loop import traits
from sparring.loop.errors import ConfigError
from sparring.loop.judgements import Disagreement, Scores, duel_id, duel_scores, duels, mean_scores, score_id, unjudged
from sparring.loop.options import check_options
from sparring.loop.types import Completion, Group, JudgeCall, Judgement, Message, digest

Form = Literal["pairwise", "pointwise"]
VerdictForm = Literal["logprobs", "json"]
J = TypeVar("J", bound=HasClient)
EXAMPLE: Message = {"role": "user", "content": "?"}


class LLMJudge(HasClient):
    """Asks `client` (see judges.llm_client) and reads the replies strictly (see judges.verdicts).

    pairwise: every duel in both orders, value = P(completion beats rival). `verdict` "logprobs" reads the log-probs of
    the labels as the next token; "json" reads a JSON verdict with its rationale. `labels` name the answer shown first,
    the one shown second and, if there is a third, a tie. If the orders disagree, `disagreement` decides.
    pointwise: a whole number on `scale`, both ends included, with its rationale. "json" only.
    `prompt` is the path of your own template (see judges.templates, and judges/prompts for those shipped).
    Raises ConfigError for an option out of range.
    """

    def __init__(
        self,
        client: LLMClient,
        *,
        form: Form = "pairwise",
        verdict: VerdictForm | None = None,
        prompt: str | None = None,
        labels: Sequence[str] | None = None,
        disagreement: Disagreement = "tie",
        scale: Sequence[int] = (1, 10),
        max_tokens: int = 512,
    ) -> None:
        answer_form: VerdictForm = verdict or ("logprobs" if form == "pairwise" else "json")
        names = tuple(labels or (("A", "B") if answer_form == "logprobs" else ("A", "B", "tie")))
        _check(form, answer_form, names, disagreement, scale, max_tokens)
        self.client, self.verdict, self.labels, self.max_tokens = client, answer_form, names, max_tokens
        self.scale = (scale[0], scale[1])
        self.compares = form == "pairwise"
        self.disagreement = disagreement
        schema = verdict_schema(names) if self.compares else score_schema(self.scale)
        self._form: dict[str, Any] = {"labels": names} if answer_form == "logprobs" else {"schema": schema}
        ours = "pointwise" if not self.compares else "pairwise" if answer_form == "logprobs" else "pairwise_json"
        shown = ("first", "second") if self.compares else ("answer",)
        self._prompt = PromptFile(prompt or ours, ("conversation", *shown))
        self._text([EXAMPLE], dict.fromkeys(shown, ""))  # a broken template raises here
        answers = [*names, disagreement] if self.compares else list(self.scale)
        self.name = f"llm-{digest([client.model, form, answer_form, self._prompt.digest, answers, max_tokens])}"

    def missing(self, group: Group) -> int:
        return len(self._open(group))

    def read(self, judgements: Sequence[Judgement]) -> Scores:
        return duel_scores(judgements, self.disagreement) if self.compares else mean_scores(judgements)

    def judge(self, groups: Sequence[Group]) -> Iterator[list[Judgement | JudgeCall]]:
        asked = [self._question(group, *each) for group in groups for each in self._open(group)]
        blank = {judgement.id: judgement for judgement, _ in asked}
        yield from self.ask(
            [question for _, question in asked], lambda reply: [self._judged(blank[reply.question.id], reply)]
        )

    def _open(self, group: Group) -> list[tuple[Completion, Completion | None, int]]:
        """The completion, rival and order of each judgement to make."""
        if not self.compares:
            return [(completion, None, 0) for completion in unjudged(group)]
        judged = {(j.completion_id, j.rival_id, j.order) for j in group.judged}
        return [(a, b, order) for a, b in duels(group) for order in (0, 1) if (a.id, b.id, order) not in judged]

    def _question(
        self, group: Group, completion: Completion, rival: Completion | None, order: int
    ) -> tuple[Judgement, Question]:
        """A judgement without a value yet, and the question whose answer will fill it."""
        if rival is None:
            row_id, answers = score_id(self.name, completion), {"answer": completion.text}
        else:
            first, second = (completion, rival) if order == 0 else (rival, completion)
            row_id, answers = duel_id(self.name, completion, rival, order), {"first": first.text, "second": second.text}
        messages = ({"role": "user", "content": self._text(group.prompt.messages, answers)},)
        blank = Judgement(row_id, self.name, completion.id, rival.id if rival else None, "", "", order, None)
        return blank, Question(row_id, self.name, messages, max_tokens=self.max_tokens, **self._form)

    def _text(self, conversation: Sequence[Message], answers: Mapping[str, str]) -> str:
        names = dict(zip(("label_first", "label_second", "label_tie"), (*self.labels, ""), strict=False))
        scale = {"low": self.scale[0], "high": self.scale[1]}
        return self._prompt.render(quoted(conversation, **answers) | (names if self.compares else scale))

    def _judged(self, judgement: Judgement, reply: Reply) -> Judgement:
        verdict = self._verdict(reply)
        value = 1 - verdict.value if judgement.order == 1 and verdict.value is not None else verdict.value
        return replace(judgement, value=value, rationale=verdict.note, status=reply.status)

    def _verdict(self, reply: Reply) -> Verdict:
        if reply.text is None:
            return Verdict(None, reply.error)
        if not self.compares:
            return json_score(self.scale, reply.text)
        if self.verdict == "json":
            return json_verdict(self.labels, reply.text)
        return label_verdict(self.labels, reply.logprobs, reply.text)


def client_of(
    model: str, engine: str | Mapping[str, Any] | None = None, endpoint: Mapping[str, Any] | None = None
) -> LLMClient:
    """The client: a vLLM engine in this process (`engine` "local", or its options), or else an endpoint.

    Neither is part of a judge's name: where the answers come from does not shape them. Raises ConfigError.
    """
    if engine is not None and endpoint is not None:
        raise ConfigError("a judge has both an engine and an endpoint; expected one of them")
    if engine is not None:
        from sparring.judges.local import EngineClient

        if isinstance(engine, str) and engine != "local":
            raise ConfigError(f"engine is {engine!r}; expected local, or the options of a local engine")
        options = {} if isinstance(engine, str) else dict(engine)
        check_options("the engine of judge", model, EngineClient, options, skip=1)
        return EngineClient(model, **options)
    from sparring.judges.endpoint import Endpoint

    check_options("the endpoint of judge", model, Endpoint, endpoint or {}, skip=1)
    return Endpoint(model, **(endpoint or {}))


def configured(judge: Callable[..., J]) -> Callable[..., J]:
    """The judge of a config: its options are those of the class, and those of `client_of` in place of a client."""

    @traits.judge(canaries=True, reached_by=("endpoint",))
    def make(model: str, engine: Any = None, endpoint: Any = None, **options: Any) -> J:
        return judge(client_of(model, engine, endpoint), **options)

    client_options, (_, *own) = (signature(part).parameters.values() for part in (client_of, judge))
    make.__signature__ = Signature([*client_options, *own])  # type: ignore[attr-defined]
    return make


llm_judge = configured(LLMJudge)


def _check(
    form: str, verdict: str, labels: Sequence[str], disagreement: str, scale: Sequence[int], max_tokens: int
) -> None:
    for option, value, choices in (
        ("form", form, get_args(Form)),
        ("verdict", verdict, get_args(VerdictForm)),
        ("disagreement", disagreement, get_args(Disagreement)),
    ):
        if value not in choices:
            raise ConfigError(f"judge llm: {option} is {value!r}; expected {' or '.join(choices)}")
    if form == "pointwise" and verdict != "json":
        raise ConfigError(
            "judge llm: a pointwise score needs verdict: json; remove verdict: logprobs, or set it to json"
        )
    plain = all(isinstance(label, str) and label and label == label.strip() for label in labels)
    if not plain or len(set(labels)) != len(labels) or len(labels) not in (2, 3):
        raise ConfigError(
            f"judge llm: labels are {list(labels)!r}; expected two different words, or three with one for a tie"
        )
    if len(scale) != 2 or not all(type(end) is int for end in scale) or scale[0] >= scale[1]:
        raise ConfigError(f"judge llm: scale is {list(scale)!r}; expected two whole numbers, the lower one first")
    if type(max_tokens) is not int or max_tokens < 1:
        raise ConfigError(f"judge llm: max_tokens is {max_tokens!r}; expected a whole number of at least 1")
