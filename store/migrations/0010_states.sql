-- What kind of run a run is, and how a judgement ended, as columns: before, a key of the config and the first words of
-- a rationale said so. store/maintenance/rebuild.py fills the same columns for parts from before them.

ALTER TABLE runs ADD COLUMN kind VARCHAR DEFAULT 'loop';
UPDATE runs SET kind = config ->> 'kind' WHERE config ->> 'kind' IS NOT NULL;
COMMENT ON COLUMN runs.kind IS
'loop (rounds of self-play), reward (the training of a reward model), evaluate (a measurement) or import (rows of files)';

ALTER TABLE judgements ADD COLUMN status VARCHAR;
UPDATE judgements SET status = CASE
    WHEN value IS NOT NULL THEN 'answered' WHEN rationale LIKE 'no reply: %' THEN 'unreached' ELSE 'abstained' END;
COMMENT ON COLUMN judgements.status IS
'answered (there is a value), abstained (the judge gave no answer, rationale says why) or unreached (no reply came, so '
'that the question is asked again)';
