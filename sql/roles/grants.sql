-- Who may do what. Applied last, after every object exists.
GRANT USAGE ON SCHEMA refold TO refold_producer, refold_worker, refold_analyst;

-- A producer adds events and sets input aside; txid, position and recorded_at are the database's to give.
GRANT INSERT (event_id, user_id, action, ts, metadata, version) ON refold.events TO refold_producer;
GRANT USAGE ON SEQUENCE refold.events_position TO refold_producer;

-- A worker reads the log and keeps builds; it cannot write the log.
GRANT SELECT ON refold.events, refold.event_ids, refold.rejected, refold.settings, refold.segments,
    refold.alembic_version, refold.forgotten, refold.acceptances, refold.lost_events
TO refold_worker;
GRANT SELECT ON SEQUENCE refold.events_position TO refold_worker;
GRANT SELECT, INSERT, UPDATE ON
    refold.builds, refold.deployments, refold.repairs, refold.dead_letters, refold.incidents, refold.sealed
TO refold_worker;
GRANT SELECT, INSERT, UPDATE, DELETE ON refold.figures, refold.audits, refold.quick_audits TO refold_worker;
-- Cursors and changes of figures are added, and old ones deleted.
GRANT SELECT, INSERT, DELETE ON refold.cursors, refold.figure_changes TO refold_worker;
-- To lock rows; none is changed.
GRANT UPDATE (build_id) ON refold.figure_changes TO refold_worker;
GRANT SELECT ON refold.builds_now TO refold_worker;
-- Slices in which nobody wrote anything are forgotten.
GRANT DELETE ON refold.sealed TO refold_worker;

-- Large statements of producers: the log notes them itself.
GRANT SELECT, DELETE ON refold.batches TO refold_worker;

GRANT SELECT, INSERT, UPDATE, DELETE ON refold.duties, refold.duplicates, refold.latencies TO refold_worker;

-- Analysts read the metrics alone; this one tells them how far to trust the others.
GRANT SELECT ON metrics.freshness TO refold_analyst, refold_worker;

REVOKE ALL ON FUNCTION
    refold.append(jsonb, text),
    refold.admit(jsonb),
    refold.admit_parsed(refold.parsed_event[]),
    refold.set_aside(text, bigint, text, text, text),
    refold.ensure_room(bigint),
    refold.ensure_segments(bigint),
    refold.unread(pg_snapshot, pg_snapshot, xid8, bigint),
    refold.has_unread(pg_snapshot, xid8),
    refold.unread_of(bigint),
    refold.forget(text, bigint, integer),
    refold.forget_builds(integer)
FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    refold.append(jsonb, text),
    refold.admit(jsonb),
    refold.admit_parsed(refold.parsed_event[]),
    refold.set_aside(text, bigint, text, text, text),
    refold.ensure_room(bigint)
TO refold_producer;
GRANT EXECUTE ON FUNCTION
    refold.ensure_segments(bigint),
    refold.unread(pg_snapshot, pg_snapshot, xid8, bigint),
    refold.has_unread(pg_snapshot, xid8),
    refold.forget(text, bigint, integer),
    refold.forget_builds(integer)
TO refold_worker;
-- What metrics.freshness calls, with the rights of whoever reads it.
GRANT EXECUTE ON FUNCTION refold.unread_of(bigint) TO refold_analyst, refold_worker;

-- Whoever may make a trigger of it on a table of their own could write ids into the ledger, whose events would
-- then be taken for duplicates. A trigger that exists fires without this privilege.
REVOKE ALL ON FUNCTION refold.let_in() FROM PUBLIC;

-- The lock is for whoever makes segments, and keeps all others from it until the transaction ends.
REVOKE ALL ON FUNCTION refold.lock_segments(boolean) FROM PUBLIC;
