-- Hashes of sample values, one for each type in the log, the ledger and most keys. PostgreSQL does not promise that hash
-- functions stay the same between major versions. So refold stores this result beside its hashes
-- (`refold.settings.hash_probe`): if it differs, the hashes are those of another server.
CREATE OR REPLACE FUNCTION refold.hash_probe() RETURNS bigint[]
LANGUAGE sql STABLE PARALLEL SAFE
SET search_path = pg_catalog
AS $$
SELECT ARRAY[
    hashtextextended('refold' COLLATE "C", 0),
    hash_record_extended(ROW(NULL::text, 'view'::text COLLATE "C"), 0),
    hash_record_extended(ROW(1::smallint, 2::integer, 3::bigint), 0),
    hash_record_extended(ROW(1.50::numeric, -2::numeric), 0),
    hash_record_extended(ROW(1.5::float4, 2.5::float8), 0),
    hash_record_extended(ROW('2026-03-02 10:00:00+00'::timestamptz, '2026-03-02 10:00:00'::timestamp), 0),
    hash_record_extended(ROW('2026-03-02'::date, '10:00'::time, '36 hours'::interval), 0),
    hash_record_extended(ROW('{"a": [1.0, "x", true, null], "b": {}}'::jsonb), 0),
    hash_record_extended(ROW(true, decode('c0de', 'hex'), '6f8f2a4e-0000-4000-8000-000000000001'::uuid), 0),
    hash_record_extended(ROW(ARRAY['a', 'b'], ARRAY[1, 2], '10.0.0.1'::inet), 0),
    hash_record_extended(ROW('726'::xid8), 0),
    hashint8extended(726, 1)
]
$$;

COMMENT ON FUNCTION refold.hash_probe() IS 'Return hashes of sample values, which show whether stored hashes are those of this server.';
