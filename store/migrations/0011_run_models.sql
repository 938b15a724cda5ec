-- How the models of a run are computed: decided when its first model was loaded, and kept for all that follow.

CREATE TABLE run_models (
    run_id        VARCHAR PRIMARY KEY,
    architecture  VARCHAR NOT NULL,
    config_sha256 VARCHAR NOT NULL,
    attention     VARCHAR NOT NULL,
    layout        VARCHAR NOT NULL,
    head          VARCHAR NOT NULL,
    engine        VARCHAR NOT NULL,
    date          VARCHAR NOT NULL
);
COMMENT ON TABLE run_models IS 'How the policy of a run is computed, one row per run: decided and confirmed at its start';
COMMENT ON COLUMN run_models.run_id IS 'the run';
COMMENT ON COLUMN run_models.architecture IS 'class of transformers';
COMMENT ON COLUMN run_models.config_sha256 IS 'hash of the class and its config, which all checkpoints of the run share';
COMMENT ON COLUMN run_models.attention IS 'implementation of attention in learning and scoring: sdpa, eager, ...';
COMMENT ON COLUMN run_models.layout IS
'shared (a row holds a prompt once, with all its completions) or separate (one completion per row)';
COMMENT ON COLUMN run_models.head IS
'positions (only positions that predict a completion token are projected to the vocabulary) or all';
COMMENT ON COLUMN run_models.engine IS 'where the sampling engine lives: this process, a process of its own, or transformers';
COMMENT ON COLUMN run_models.date IS 'the day that chat templates take for today, in UTC: the same in all rounds of the run';
