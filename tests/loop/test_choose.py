"""Which prompts a round plays when a query chooses."""

from dataclasses import replace
from pathlib import Path

import pytest

from sparring.flows.compose.sql_plugs import chooser
from sparring.loop.errors import StepError
from sparring.loop.round import play
from tests.helpers.scripted_loop import make_loop

# The last prompts by their id come first, and of the next round the first ones.
QUERY = """SELECT prompt_id FROM prompts WHERE split = 'train'
    ORDER BY CASE $round WHEN 1 THEN prompt_id END DESC, prompt_id LIMIT 1"""


def test_a_round_plays_the_chosen_prompts_first_and_fills_up_in_order(tmp_path: Path) -> None:
    loop = make_loop(tmp_path)
    parts = replace(loop.parts, choose=chooser(loop.store, QUERY, loop.parts.judge.name))
    rnd = play(loop.start, parts)
    usual = rnd.prompt_ids
    assert len(usual) == parts.per_round < len(parts.train)
    following = play(rnd, parts)
    begun, ordered = loop.store.begun(rnd), sorted(parts.train)
    assert begun is not None and begun.judge == parts.judge.name
    assert begun.prompt_ids == tuple(dict.fromkeys([ordered[-1], *usual]))[: len(usual)]
    # Played again, it is what it was, whatever would be chosen now.
    play(rnd, replace(parts, choose=lambda rnd: [ordered[0]]))
    assert loop.store.begun(rnd) == begun
    play(following, parts)
    second = loop.store.begun(following)
    assert second is not None and second.prompt_ids[0] == ordered[0]


def test_a_prompt_that_is_not_of_the_run_is_refused(tmp_path: Path) -> None:
    loop = make_loop(tmp_path)
    rnd = play(loop.start, loop.parts)
    with pytest.raises(StepError, match=r"prompts\.query chose .* not a train prompt of night"):
        play(rnd, replace(loop.parts, choose=lambda rnd: loop.parts.held_out))
    assert loop.store.begun(rnd) is None
