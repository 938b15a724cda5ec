-- Where imported rows come from: the files, their licences, and each row as it stood.

CREATE TABLE sources (
    source_id   VARCHAR PRIMARY KEY,
    run_id      VARCHAR NOT NULL,
    source      VARCHAR NOT NULL,
    licence     VARCHAR NOT NULL,
    path        VARCHAR NOT NULL,
    sha256      VARCHAR NOT NULL,
    shape       VARCHAR NOT NULL CHECK (shape IN ('pairs', 'comparisons', 'groups', 'labels')),
    split       VARCHAR NOT NULL CHECK (split IN ('train', 'eval')),
    columns     JSON NOT NULL,
    rows        BIGINT NOT NULL,
    refused     BIGINT NOT NULL,
    imported_at TIMESTAMPTZ NOT NULL DEFAULT now()
);
COMMENT ON TABLE sources IS
'Files that were imported: whose they are (source, licence), their hash, which of their columns were read as what, how '
'many rows were taken and how many refused';

CREATE TABLE source_rows (
    source_row_id  VARCHAR PRIMARY KEY,
    source_id      VARCHAR NOT NULL,
    number         BIGINT NOT NULL,
    prompt_id      VARCHAR NOT NULL,
    completion_ids VARCHAR[] NOT NULL,
    judgement_id   VARCHAR,
    pair_id        VARCHAR,
    example_id     VARCHAR,
    fields         JSON NOT NULL
);
COMMENT ON TABLE source_rows IS
'Every row of an imported file, by number from 1: what was made of it, its answers in the order given, and as `fields` '
'the columns that have no place elsewhere';

-- A label of an imported comparison has no order of showing, as people see one order only.
CREATE OR REPLACE VIEW duels AS
WITH asked AS (
    SELECT j.*, CASE WHEN k.kind IN ('people', 'import') THEN 1 ELSE 2 END AS orders
    FROM judgements j LEFT JOIN judges k USING (judge)
    WHERE j.rival_id IS NOT NULL
)
SELECT
    judge, member, principle, completion_id, rival_id,
    max(value) FILTER ("order" = 0) AS p_shown_first, max(value) FILTER ("order" = 1) AS p_shown_second,
    count(value) >= orders AS answered,
    CASE WHEN count(value) < orders THEN NULL
         WHEN (max(value) FILTER ("order" = 0) - 0.5) * (max(value) FILTER ("order" = 1) - 0.5) < 0 THEN 0.5
         ELSE avg(value) END AS p_wins
FROM asked
GROUP BY judge, member, principle, completion_id, rival_id, orders;
COMMENT ON VIEW duels IS
'Each comparison of two answers, in both orders (people see one, drawn at random; imported labels have one): p_wins is '
'P(completion beats rival), 0.5 where the orders disagree on the winner, NULL where one has no answer';
