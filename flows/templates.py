"""What `spar init` writes."""

CONFIG = """\
# A self-play loop. Every key is documented in docs/config.md; unknown keys are refused.
name: my-loop                # a name stands for one config in a store
store: preferences.duckdb    # everything that is sampled, judged, paired and learned
seed: 0
rounds: 3
policy:   {model: bundled/smollm2-135m-instruct}      # or a local folder, or a hub id
prompts:  {train: train.jsonl, eval: eval.jsonl}      # rows with prompt or messages; other fields go to the judge
sample:   {n: 8, temperature: 1.0, max_tokens: 64}
judge:    {kind: rules}                               # verifies instruction_id_list, answer, regex, max_words, choice
pair:     {kind: best_worst, per_prompt: 2}
learn:    {algorithm: dpo, loss: sigmoid, beta: 0.1, lr: 1.0e-5, batch_size: 4, reference: previous}
evaluate: {rival: initial, n: 4, gate: 0.5}           # below this win rate a candidate is rejected
"""

TOPICS = ("rain", "bread", "a train ride", "the moon", "a garden", "an old clock", "tea", "a lost key")
HELD_OUT = ("snow", "a bicycle", "the sea", "a library")


def _rows(topics: tuple[str, ...]) -> str:
    rows = "".join(
        f'{{"prompt": "Write one short sentence about {topic}, at most eight words.", "max_words": 8}}\n'
        for topic in topics
    )
    return rows + "".join(
        f'{{"prompt": "Name three words that go with {topic}. Use no commas.", "regex": "^[^,]*$", "max_words": 12}}\n'
        for topic in topics
    )


FILES = {"loop.yaml": CONFIG, "train.jsonl": _rows(TOPICS), "eval.jsonl": _rows(HELD_OUT)}
