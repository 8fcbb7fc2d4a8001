-- Create an index by which an audit finds a range of positions or of time in an event-grain table. BRIN costs next to
-- nothing on insert, because both grow with the table. (minmax_multi: a few late events must not make a range of blocks span
-- years.)
CREATE OR REPLACE FUNCTION refold.index_ranges(stream regclass, name text) RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    times text := '';
BEGIN
    IF EXISTS (SELECT FROM pg_attribute WHERE attrelid = stream AND attname = 'ts' AND atttypid = 'timestamptz'::regtype) THEN
        times := ', ts timestamptz_minmax_multi_ops';
    END IF;
    EXECUTE format('CREATE INDEX %I ON %s USING brin (position%s) WITH (pages_per_range = 32, autosummarize = on)',
                   name, stream, times);
END
$$;
