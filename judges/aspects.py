"""A judge that scores answers on the aspects that matter to the prompt, after DRPO (arXiv:2411.08733).

The model first chooses the aspects for each prompt. Then it scores each answer on these aspects.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sparring.judges.llm import configured
from sparring.judges.llm_client import HasClient, LLMClient, Question, Reply
from sparring.judges.templates import PromptFile, quoted, read_yaml
from sparring.judges.verdicts import read_object, storable, strict_schema
from sparring.loop.errors import ConfigError
from sparring.loop.judgements import Pointwise, score_id
from sparring.loop.types import Completion, Group, JudgeCall, Judgement, JudgementStatus, digest, make_id

OURS = Path(__file__).with_name("aspects.yaml")
LOW, HIGH = 1, 5
BLOCK = 64  # prompts whose aspects are chosen before their answers are scored; a crash repeats at most these choices
UNCHOSEN = ("",)  # the principle of a completion's row if no aspects could be chosen

Names = tuple[str, ...]  # of aspects, in the order of the file
Chunk = list[Judgement | JudgeCall]


class AspectsJudge(HasClient, Pointwise):
    """Scores each completion alone: 1 to 5 on every aspect chosen for its prompt, all in one reply, with reasons.

    There is one judgement per aspect, named in `principle`. A completion's score is their mean. An aspect that the
    reply leaves out, or scores twice with different scores, has value None. The rows of a completion come in one chunk.
    After a restart, the rows of one completion therefore show which aspects were chosen for its prompt. They are chosen
    again only if there are no rows. If no aspects could be chosen, a completion gets one row without principle and with
    value None.

    `aspects` is a YAML file of your own, name: definition. Raises ConfigError for an option out of range.
    """

    def __init__(self, client: LLMClient, *, aspects: str | None = None, max_tokens: int = 1024) -> None:
        if type(max_tokens) is not int or max_tokens < 1:
            raise ConfigError(f"judge aspects: max_tokens is {max_tokens!r}; expected a whole number of at least 1")
        self._aspects = read_aspects(Path(aspects).expanduser() if aspects else OURS)
        self.client, self._max_tokens = client, max_tokens
        self._choosing = PromptFile("aspects_choose", ("conversation", "aspects"))
        self._scoring = PromptFile("aspects_score", ("conversation", "answer", "aspects"))
        prompts = [self._choosing.digest, self._scoring.digest]
        self.name = f"aspects-{digest([client.model, *prompts, list(self._aspects.items()), max_tokens])}"

    def missing(self, group: Group) -> int:
        """While no aspects are chosen, this counts one judgement per completion."""
        names = self._chosen(group) or UNCHOSEN
        return sum(len({*names} - _scored_on(group, completion)) for completion in group.completions)

    def judge(self, groups: Sequence[Group]) -> Iterator[Chunk]:
        open_groups = [group for group in by_prompt(groups) if self.missing(group)]
        for start in range(0, len(open_groups), BLOCK):
            block = open_groups[start : start + BLOCK]
            chosen = {group.prompt.id: names for group in block if (names := self._chosen(group))}
            yield from self._choose([group for group in block if group.prompt.id not in chosen], chosen)
            yield from self._score([group for group in block if group.prompt.id in chosen], chosen)

    def _chosen(self, group: Group) -> Names:
        """The aspects on which some completion of the group has been scored."""
        scored = {j.principle for j in group.judged}
        return tuple(name for name in self._aspects if name in scored)

    def _choose(self, groups: Sequence[Group], chosen: dict[str, Names]) -> Iterator[Chunk]:
        """Fill in `chosen`. Yields the calls, and the completions' rows if no aspects could be chosen."""
        schema = choice_schema(list(self._aspects))
        by_id = {make_id("judgement", judge=self.name, prompt=group.prompt.id): group for group in groups}
        questions = [
            self._question(row_id, schema, self._choosing, quoted(group.prompt.messages), self._aspects)
            for row_id, group in by_id.items()
        ]

        def judged(reply: Reply) -> Iterator[Judgement]:
            group, choice = by_id[reply.question.id], read_choice(reply, list(self._aspects))
            if not isinstance(choice, str):
                chosen[group.prompt.id] = tuple(name for name in self._aspects if name in choice)
                return
            for completion in group.completions:
                if "" not in _scored_on(group, completion):
                    yield self._row(completion, "", None, choice, reply.status)

        yield from self.ask(questions, judged)

    def _score(self, groups: Sequence[Group], chosen: Mapping[str, Names]) -> Iterator[Chunk]:
        by_id: dict[str, tuple[Completion, Names]] = {}
        questions = []
        for group in groups:
            for completion in group.completions:
                scored = _scored_on(group, completion)
                if names := tuple(name for name in chosen[group.prompt.id] if name not in scored):
                    row_id = score_id(self.name, completion, principle=names[0])
                    by_id[row_id] = completion, names
                    shown = quoted(group.prompt.messages, answer=completion.text) | {"low": LOW, "high": HIGH}
                    aspects = {name: self._aspects[name] for name in names}
                    questions.append(self._question(row_id, scores_schema(names), self._scoring, shown, aspects))
        yield from self.ask(questions, lambda reply: self._scored(*by_id[reply.question.id], reply))

    def _question(
        self,
        row_id: str,
        schema: Mapping[str, Any],
        prompt: PromptFile,
        shown: Mapping[str, Any],
        aspects: Mapping[str, str],
    ) -> Question:
        messages = ({"role": "user", "content": prompt.render({**shown, "aspects": aspects})},)
        return Question(row_id, self.name, messages, schema=schema, max_tokens=self._max_tokens)

    def _scored(self, completion: Completion, names: Names, reply: Reply) -> Iterator[Judgement]:
        scores = read_scores(reply, names)
        for name in names:
            value, rationale = (None, scores) if isinstance(scores, str) else scores[name]
            yield self._row(completion, name, value, rationale, reply.status)

    def _row(
        self, completion: Completion, name: str, value: float | None, rationale: str, status: JudgementStatus
    ) -> Judgement:
        row_id = score_id(self.name, completion, principle=name)
        return Judgement(row_id, self.name, completion.id, None, "", name, 0, value, rationale, status)


aspects_judge = configured(AspectsJudge)


def read_aspects(path: Path) -> dict[str, str]:
    """The aspects of a YAML file, name: definition. Raises ConfigError for a file that holds none."""
    aspects = read_yaml("aspects", path)
    texts = [text for row in aspects.items() for text in row] if isinstance(aspects, dict) else []
    if not texts or not all(isinstance(text, str) and text for text in texts):
        raise ConfigError(f"{path} has {aspects!r}; expected aspects as name: definition, both of them texts")
    return {**aspects}


def by_prompt(groups: Sequence[Group]) -> list[Group]:
    """One group a prompt, with the completions and judgements of all its groups: aspects are chosen once a prompt."""
    merged: dict[str, Group] = {}
    for group in groups:
        known = merged.get(group.prompt.id, replace(group, completions=(), judged=()))
        completions = tuple({c.id: c for c in (*known.completions, *group.completions)}.values())
        merged[group.prompt.id] = replace(known, completions=completions, judged=(*known.judged, *group.judged))
    return list(merged.values())


def choice_schema(names: Sequence[str]) -> dict[str, Any]:
    chosen = {"type": "array", "items": {"type": "string", "enum": list(names)}, "minItems": 1}
    return strict_schema({"rationale": {"type": "string"}, "aspects": chosen})


def scores_schema(names: Sequence[str]) -> dict[str, Any]:
    """A list rather than one key per aspect: if one is left out, the others still count."""
    aspect, number = {"type": "string", "enum": list(names)}, {"type": "integer", "minimum": LOW, "maximum": HIGH}
    score = strict_schema({"aspect": aspect, "reason": {"type": "string"}, "score": number})
    return strict_schema({"scores": {"type": "array", "items": score, "minItems": 1, "maxItems": len(names)}})


def read_choice(reply: Reply, names: Sequence[str]) -> set[str] | str:
    """The names of the chosen aspects, or the reason why there are none."""
    if reply.text is None:
        return reply.error
    choice = read_object(reply.text, choice_schema(names))
    return choice if isinstance(choice, str) else {*choice["aspects"]}


def read_scores(reply: Reply, names: Names) -> dict[str, tuple[float | None, str]] | str:
    """Per aspect the score and its rationale, or None and why there is no score; or why there are no scores at all."""
    if reply.text is None:
        return reply.error
    answer = read_object(reply.text, scores_schema(names))
    return answer if isinstance(answer, str) else {name: _one_score(answer["scores"], name) for name in names}


def _one_score(scores: Sequence[Mapping[str, Any]], name: str) -> tuple[float | None, str]:
    entries = [each for each in scores if each["aspect"] == name]
    values = [each["score"] for each in entries]
    if len({*values}) != 1 or not isinstance(values[0], int):  # JSON Schema accepts 4.0 as an integer
        return None, f"the reply scores {name} with {values}; expected one whole number"
    return float(values[0]), storable(entries[0]["reason"])


def _scored_on(group: Group, completion: Completion) -> set[str]:
    return {j.principle for j in group.judged if j.completion_id == completion.id}
