-- Who may do what. Applied last, after every object exists.
GRANT USAGE ON SCHEMA refold
TO refold_producer, refold_worker, refold_analyst, refold_observer, refold_inspector, refold_door;

-- A producer adds events and sets input aside; txid, position and recorded_at are the database's to give.
GRANT INSERT (event_id, user_id, action, ts, metadata, version) ON refold.events TO refold_producer;
GRANT USAGE ON SEQUENCE refold.events_position TO refold_producer;

-- A worker reads the log and keeps builds; it cannot write the log.
GRANT SELECT ON refold.events, refold.event_ids, refold.rejected, refold.settings, refold.segments,
    refold.alembic_version, refold.forgotten, refold.acceptances, refold.lost_events
TO refold_worker;
GRANT SELECT ON SEQUENCE refold.events_position TO refold_worker;
GRANT SELECT, INSERT, UPDATE ON
    refold.builds, refold.deployments, refold.repairs, refold.dead_letters, refold.incidents, refold.sealed_slices
TO refold_worker;
GRANT SELECT, INSERT, UPDATE, DELETE ON refold.checksums, refold.audits, refold.quick_audits TO refold_worker;
-- Cursors and changes of checksums are added, and old ones deleted.
GRANT SELECT, INSERT, DELETE ON refold.cursors, refold.checksum_changes TO refold_worker;
-- To lock rows; none is changed.
GRANT UPDATE (build_id) ON refold.checksum_changes TO refold_worker;
GRANT SELECT ON refold.builds_now TO refold_worker;
-- Slices in which nobody wrote anything are forgotten.
GRANT DELETE ON refold.sealed_slices TO refold_worker;

-- Large statements of producers: the log notes them itself.
GRANT SELECT, DELETE ON refold.batches TO refold_worker;

GRANT SELECT, INSERT, UPDATE, DELETE ON refold.duties, refold.duplicates, refold.latencies TO refold_worker;

-- An observer sees how things stand: states, lags, incidents, counts. No event, no key, no text that somebody sent or that
-- an error repeats; and so no column in which one may be.
GRANT SELECT ON refold.settings, refold.segments, refold.alembic_version, refold.deployments, refold.forgotten,
    refold.duplicates, refold.latencies, refold.batches
TO refold_observer;
GRANT SELECT ON SEQUENCE refold.events_position TO refold_observer;
GRANT SELECT (
    build_id, projection, fingerprint, number, state, table_name, language, upkeep, upstream_id, done, target,
    progress_txid, progress_position, progress_ordinal, loaded, load_step, load_steps, events_applied, pages_applied,
    apply_ms, applied_at, moved_at, deployment, created_at, promoted_at, retired_at, retired_by, dead_letters, failing,
    waiting_letters
) ON refold.builds_now TO refold_observer;
GRANT SELECT (build_id, projection, number, state, table_name, upkeep, upstream_id, deployment, dead_letters)
    ON refold.builds TO refold_observer;
GRANT SELECT (
    incident_id, kind, subject, started_at, detected_at, detected_by, resolved_at, resolved_by
) ON refold.incidents TO refold_observer;
GRANT SELECT (name, started_at, ended_at, pid, failures) ON refold.duties TO refold_observer;
GRANT SELECT (dead_letter_id, build_id, state, attempts, sqlstate, first_failed_at, last_failed_at, ended_at)
    ON refold.dead_letters TO refold_observer;
GRANT SELECT (slice, sealed_at) ON refold.sealed_slices TO refold_observer;
GRANT SELECT (rejected_id, answer, times, first_seen, last_seen) ON refold.rejected TO refold_observer;
GRANT SELECT (repair_id, build_id, projection, relation, kind, repaired_by, repaired_at)
    ON refold.repairs TO refold_observer;

-- An inspector sees the evidence as well, and what it is about.
GRANT SELECT ON refold.builds, refold.builds_now, refold.incidents, refold.duties, refold.dead_letters, refold.rejected,
    refold.repairs, refold.acceptances, refold.lost_events, refold.events
TO refold_inspector;

-- The HTTP door knows tokens by their digests; it adds events as a producer does.
GRANT SELECT, UPDATE (last_used_at) ON refold.tokens TO refold_door;
GRANT SELECT ON refold.settings, refold.alembic_version TO refold_door;

REVOKE ALL ON FUNCTION
    refold.append(jsonb, text),
    refold.append_group(
        text[], text[], text[], timestamptz[], jsonb[], integer[], text[], text[], text[], bigint[]),
    refold.admit(jsonb),
    refold.admit_parsed(refold.parsed_event[]),
    refold.reject(text, bigint, text, text, text),
    refold.ensure_room(bigint),
    refold.ensure_segments(bigint),
    refold.unread(pg_snapshot, pg_snapshot, xid8, bigint),
    refold.has_unread(pg_snapshot, xid8),
    refold.unread_of(bigint),
    refold.last_txid(),
    refold.log_size(bigint),
    refold.recorded_since(timestamptz),
    refold.forget(text, bigint, integer),
    refold.forget_builds(integer)
FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    refold.append(jsonb, text),
    refold.append_group(
        text[], text[], text[], timestamptz[], jsonb[], integer[], text[], text[], text[], bigint[]),
    refold.admit(jsonb),
    refold.admit_parsed(refold.parsed_event[]),
    refold.reject(text, bigint, text, text, text),
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
GRANT EXECUTE ON FUNCTION refold.unread_of(bigint) TO refold_analyst, refold_worker, refold_observer;
-- They answer with a figure, and read the log for whoever may not.
GRANT EXECUTE ON FUNCTION refold.last_txid(), refold.log_size(bigint), refold.recorded_since(timestamptz)
TO refold_worker, refold_observer;

-- Whoever may make a trigger of it on a table of their own could write ids into the ledger, whose events would
-- then be taken for duplicates. A trigger that exists fires without this privilege.
REVOKE ALL ON FUNCTION refold.register_event_ids() FROM PUBLIC;

-- The lock is for whoever makes segments, and keeps all others from it until the transaction ends.
REVOKE ALL ON FUNCTION refold.lock_segments(boolean) FROM PUBLIC;
