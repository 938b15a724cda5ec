-- How far a policy has moved from another, per held-out answer: the KL over the vocabulary at each token, summed.

CREATE TABLE divergences (
    divergence_id    VARCHAR PRIMARY KEY,
    completion_id    VARCHAR NOT NULL,
    weights_sha256   VARCHAR NOT NULL,
    reference_sha256 VARCHAR NOT NULL,
    value            DOUBLE NOT NULL,
    n_tokens         INTEGER NOT NULL
);
COMMENT ON TABLE divergences IS
'KL(policy || reference) along an answer of the policy, at temperature 1: computed once, cached by content';
COMMENT ON COLUMN divergences.divergence_id IS 'derived from both weights and the completion';
COMMENT ON COLUMN divergences.completion_id IS 'the answer';
COMMENT ON COLUMN divergences.weights_sha256 IS 'weights of the policy';
COMMENT ON COLUMN divergences.reference_sha256 IS 'weights of the reference, e.g. of the initial policy';
COMMENT ON COLUMN divergences.value IS 'nats, summed over the tokens of the answer; never negative';
COMMENT ON COLUMN divergences.n_tokens IS 'tokens of the answer';
