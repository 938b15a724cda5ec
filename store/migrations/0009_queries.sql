-- The queries that stand in the place of a part of a run.

CREATE TABLE queries (
    query_id   VARCHAR PRIMARY KEY,
    run_id     VARCHAR NOT NULL,
    plug       VARCHAR NOT NULL,
    sql        VARCHAR NOT NULL,
    sql_sha256 VARCHAR NOT NULL
);
COMMENT ON TABLE queries IS
'SQL that a run was played with: who was paired (pair.query), which prompts came next (prompts.query), when to stop (stop.query)';
