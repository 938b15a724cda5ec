"""Labelled pairs as rows of token ids, and the order in which they are learned."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from sparring.judges.reward.encoding import Encoded, Encoding
from sparring.judges.reward.model import RewardModel
from sparring.judges.reward.options import RewardTraining
from sparring.loop.errors import DataError
from sparring.loop.labelled_pairs import Preference
from sparring.loop.learning.batches import Plan, plan
from sparring.loop.types import Message, derive_seed, digest

DROPPED = ("too_long", "identical", "duplicate")


class Encodes(Protocol):
    def encode(self, messages: Sequence[Message], answer: str) -> Encoded | None: ...


@dataclass(frozen=True, slots=True)
class PairRow:
    """A pair with its likelier winner first; `p` is from 0.5 (a tie) to 1."""

    preference: Preference
    chosen: Encoded
    rejected: Encoded
    p: float

    @property
    def longer(self) -> int:
        """The number of characters by which the likelier winner is longer."""
        difference = len(self.preference.a) - len(self.preference.b)
        return difference if self.preference.p_a >= 0.5 else -difference

    @property
    def length(self) -> int:
        """Its tokens in a padded batch: both answers at the width of the longer."""
        return 2 * max(len(self.chosen), len(self.rejected))


@dataclass(frozen=True)
class Pairs:
    """The pairs to learn from, and the number of those dropped, by reason (see `encode_pairs`)."""

    rows: tuple[PairRow, ...]
    dropped: Mapping[str, int]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def ties(self) -> int:
        return sum(row.p == 0.5 for row in self.rows)


def encode_pairs(encoding: Encodes, preferences: Sequence[Preference]) -> Pairs:
    """The pairs as token ids. Three kinds are dropped and counted in `dropped`:

    too_long    one of the answers does not fit (a cut would remove the token where the score is read)
    identical   both answers have the same tokens, so that no score can tell them apart
    duplicate   the same answers to the same prompt with the same label came before, in either order

    A pair that two people labelled differently is kept twice. Ties are kept: their target is 0.5.
    """
    rows: list[PairRow] = []
    dropped = Counter(dict.fromkeys(DROPPED, 0))
    seen: set[str] = set()
    for preference in preferences:
        key = _key(preference)
        if key in seen:
            dropped["duplicate"] += 1
            continue
        seen.add(key)
        a, b = (encoding.encode(preference.messages, text) for text in (preference.a, preference.b))
        if a is None or b is None:
            dropped["too_long"] += 1
        elif a.ids == b.ids:
            dropped["identical"] += 1
        elif preference.p_a >= 0.5:
            rows.append(PairRow(preference, a, b, preference.p_a))
        else:
            rows.append(PairRow(preference, b, a, 1 - preference.p_a))
    return Pairs(tuple(rows), dict(dropped))


def pairs_of(model: RewardModel, preferences: Sequence[Preference] | Pairs) -> Pairs:
    """The pairs in the encoding of the model's own folder, if they are not encoded yet."""
    return preferences if isinstance(preferences, Pairs) else encode_pairs(encoding_of(model), preferences)


def encoding_of(model: RewardModel) -> Encoding:
    """The encoding of the folder that the model's backbone was loaded from."""
    return Encoding(model.backbone.config.name_or_path, model.max_length)


def encode_groups(encoding: Encodes, preferences: Sequence[Preference]) -> list[tuple[Encoded, ...]]:
    """The distinct answers per prompt that fit, whatever their labels. A prompt with fewer than two is left out."""
    groups: dict[str, dict[tuple[int, ...], Encoded]] = defaultdict(dict)
    for preference in preferences:
        for text in (preference.a, preference.b):
            encoded = encoding.encode(preference.messages, text)
            if encoded is not None:
                groups[preference.prompt][encoded.ids] = encoded
    return [tuple(group.values()) for group in groups.values() if len(group) > 1]


def refuse_unlearnable(pairs: Pairs) -> None:
    """Raise DataError if no pair with a winner is left."""
    if len(pairs.rows) == pairs.ties:
        raise DataError(
            f"there is nothing to learn from: {len(pairs.rows)} pairs are left, {pairs.ties} of them ties, and "
            f"{dict(pairs.dropped)} were dropped; give labelled pairs, or raise max_length"
        )


def pair_plan(rows: Sequence[PairRow], options: RewardTraining, token_budget: int, member: int = 0) -> Plan:
    """The order in which a member learns the rows (see loop.learning.batches.plan); each member has its own."""
    lengths, seed = [row.length for row in rows], derive_seed("order", options.seed, member)
    return plan(lengths, batch_size=options.batch_size, token_budget=token_budget, seed=seed, epochs=options.epochs)


def split_rows(rows: Sequence[PairRow], share: float, seed: int) -> tuple[list[PairRow], list[PairRow]]:
    """About `share` of the prompts with all their pairs, and the rest (see loop.labelled_pairs.split_by_prompt)."""
    places = [int(digest(["stage", seed, row.preference.prompt], 4), 16) / 2**32 for row in rows]
    first = [row for row, place in zip(rows, places, strict=True) if place < share]
    return first, [row for row, place in zip(rows, places, strict=True) if place >= share]


def _key(preference: Preference) -> str:
    sides = sorted([[preference.a, preference.p_a], [preference.b, 1 - preference.p_a]], key=repr)
    return digest([preference.prompt, sides])
