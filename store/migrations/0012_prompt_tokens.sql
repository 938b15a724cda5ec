-- The tokens that a prompt was rendered to are kept with what was sampled: learning never renders it a second time.

CREATE TABLE prompt_tokens (
    prompt_tokens_id VARCHAR PRIMARY KEY,
    prompt_id        VARCHAR NOT NULL,
    token_ids        INTEGER[] NOT NULL
);
COMMENT ON TABLE prompt_tokens IS 'Prompts as the token ids that a policy was given, one row per prompt and rendering';
COMMENT ON COLUMN prompt_tokens.prompt_tokens_id IS 'derived from the prompt and the ids';
COMMENT ON COLUMN prompt_tokens.prompt_id IS 'the prompt';
COMMENT ON COLUMN prompt_tokens.token_ids IS 'up to where the answer begins';

ALTER TABLE completions ADD COLUMN prompt_tokens_id VARCHAR;
COMMENT ON COLUMN completions.prompt_tokens_id IS
'the prompt as the policy was given it; NULL for answers of another model or of a file, and from before this was kept';

