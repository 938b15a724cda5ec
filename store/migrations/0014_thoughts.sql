-- A policy that thinks: what it wrote before its answer, apart from the answer that judges see.

ALTER TABLE completions ADD COLUMN thought VARCHAR;
COMMENT ON COLUMN completions.thought IS
'what a policy that thinks wrote before its answer, which is in text; with an empty text the thought was not closed and '
'there is no answer; NULL: no thought';
