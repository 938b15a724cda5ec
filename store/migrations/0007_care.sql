-- What was forgotten on request: a tombstone for each prompt, without a word of it.

CREATE TABLE forgotten (
    prompt_id      VARCHAR PRIMARY KEY,
    reason         VARCHAR NOT NULL,
    forgotten_by   VARCHAR NOT NULL,
    forgotten_at   TIMESTAMPTZ NOT NULL DEFAULT now(),
    removed        JSON NOT NULL,
    run_ids        VARCHAR[] NOT NULL,
    update_ids     VARCHAR[] NOT NULL,
    checkpoint_ids VARCHAR[] NOT NULL
);
COMMENT ON TABLE forgotten IS
'Prompts that were removed with all that came from them (removed: rows by table). The updates had learned from them, and '
'the checkpoints came of those updates: weights do not forget. The id is a digest: who guesses the prompt can confirm it';
