-- Privileges of the roles. Applied last, when every object exists.
GRANT USAGE ON SCHEMA refold
TO refold_producer, refold_worker, refold_analyst, refold_observer, refold_inspector, refold_door, refold_capture;

-- A producer appends events and stores rejected input; only the database sets txid, position and recorded_at.
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
-- Rows of cursors and changes of checksums are added, and old ones deleted.
GRANT SELECT, INSERT, DELETE ON refold.cursors, refold.checksum_changes TO refold_worker;
-- Needed to lock rows; no row is changed.
GRANT UPDATE (build_id) ON refold.checksum_changes TO refold_worker;
GRANT SELECT ON refold.builds_now TO refold_worker;
-- Records of empty slices are deleted.
GRANT DELETE ON refold.sealed_slices TO refold_worker;

-- A trigger of the log records large statements of producers; workers delete old records.
GRANT SELECT, DELETE ON refold.batches TO refold_worker;
GRANT SELECT ON refold.log_ends TO refold_worker;

GRANT SELECT, INSERT, UPDATE, DELETE ON refold.duties, refold.duplicates, refold.latencies TO refold_worker;

-- An observer sees states, lags, incidents and counts. It sees no event, no key, and no text from an event or an error, and
-- so no column that may hold one.
GRANT SELECT ON refold.settings, refold.segments, refold.alembic_version, refold.forgotten,
    refold.duplicates, refold.latencies, refold.batches
TO refold_observer;
GRANT SELECT ON SEQUENCE refold.events_position TO refold_observer;
GRANT SELECT (deployment, kind, requested_by, requested_at, promote, promoted_at, given_up_at, views)
    ON refold.deployments TO refold_observer;
GRANT SELECT (
    build_id, projection, fingerprint, number, state, table_name, language, upkeep, upstream_id, done, target,
    progress_txid, progress_position, progress_ordinal, loaded, load_step, load_steps, events_applied, pages_applied,
    apply_ms, applied_at, moved_at, deployment, created_at, promoted_at, retired_at, retired_by, dead_letters, failing,
    waiting_letters, sinks
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

-- An inspector also sees the evidence, with its keys and texts.
GRANT SELECT ON refold.builds, refold.builds_now, refold.deployments, refold.incidents, refold.duties, refold.dead_letters, refold.rejected,
    refold.repairs, refold.acceptances, refold.lost_events, refold.events
TO refold_inspector;

-- What holds producers back is for everybody to see.
GRANT SELECT, INSERT, UPDATE, DELETE ON refold.pressure_signals TO refold_worker;
GRANT SELECT ON refold.pressure TO refold_producer, refold_door, refold_worker, refold_observer, refold_analyst;

-- The HTTP door knows tokens by their digests; it adds events as a producer does.
GRANT SELECT, UPDATE (last_used_at) ON refold.tokens TO refold_door;
GRANT SELECT ON refold.settings, refold.alembic_version TO refold_door;

-- The functions of captures run as this role: they add events, under ids that only it may use, and set rows aside.
GRANT INSERT (event_id, user_id, action, ts, metadata) ON refold.events TO refold_capture;
GRANT USAGE, SELECT ON SEQUENCE refold.events_position TO refold_capture;
GRANT USAGE ON SEQUENCE refold.capture_ordinals, refold.captures_capture_id_seq TO refold_capture;
GRANT SELECT (event_id) ON refold.event_ids TO refold_capture;
GRANT SELECT ON refold.settings, refold.alembic_version TO refold_capture;
GRANT SELECT, INSERT, UPDATE, DELETE ON refold.captures, refold.capture_gaps, refold.backfills TO refold_capture;
GRANT SELECT ON refold.captures, refold.capture_gaps, refold.backfills TO refold_worker, refold_inspector;
-- An error may hold a part of a row, and progress a key.
GRANT SELECT ON refold.captures TO refold_observer;
GRANT SELECT (gap_id, capture_id, at, txid, operation, pauses, sqlstate) ON refold.capture_gaps TO refold_observer;
GRANT SELECT (backfill_id, capture_id, started_at, snapshot, seen, added, stepped_at, finished_at)
    ON refold.backfills TO refold_observer;

-- Deliverers and the commands of sinks act as workers.
GRANT SELECT, INSERT, UPDATE, DELETE ON refold.sinks, refold.sink_checksums, refold.sink_keys, refold.undelivered
TO refold_worker;
GRANT SELECT, INSERT, DELETE ON refold.sink_states TO refold_worker;
-- What a receiver says may repeat a row; a file may name its address.
GRANT SELECT (sink_id, name, projection, grain, kind, once, created_at, changed_at, changed_by)
    ON refold.sinks TO refold_observer;
GRANT SELECT (
    sink_id, number, condition, following, build_id, epoch, holder, leased_until, failures, failing_since, retry_at,
    status, batch, delivered, delivered_at, given_epoch, given_number, done, target, progress_txid,
    progress_position, progress_ordinal, at
) ON refold.sink_states TO refold_observer;
GRANT SELECT ON refold.sinks_now TO refold_worker, refold_inspector;
GRANT SELECT (
    sink_id, name, projection, grain, kind, number, condition, following, build_id, epoch, holder, leased_until, failures,
    failing_since, retry_at, status, batch, delivered, delivered_at, given_epoch,
    given_number, done, target, progress_txid, progress_position, progress_ordinal, at
) ON refold.sinks_now TO refold_observer;
GRANT SELECT (undelivered_id, sink_id, state, attempts, status, first_failed_at, last_failed_at, ended_at)
    ON refold.undelivered TO refold_observer;
GRANT SELECT ON refold.sinks, refold.sink_states, refold.undelivered TO refold_inspector;

REVOKE ALL ON FUNCTION
    refold.append(jsonb, text),
    refold.append_group(
        text[], text[], text[], timestamptz[], jsonb[], integer[], text[], text[], text[], bigint[]),
    refold.admit(jsonb),
    refold.admit_parsed(refold.parsed_event[]),
    refold.reject(text, bigint, text, text, text),
    refold.ensure_room(bigint),
    refold.ensure_capture_room(bigint),
    refold.store_captured(refold.parsed_event[]),
    refold.set_aside(text, text, text),
    refold.store_before_delete(text, refold.parsed_event, text),
    refold.ensure_segments(bigint),
    refold.unread(pg_snapshot, pg_snapshot, xid8, bigint),
    refold.has_unread(pg_snapshot, xid8),
    refold.unread_now(),
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
    refold.ensure_capture_room(bigint),
    refold.store_captured(refold.parsed_event[]),
    refold.set_aside(text, text, text),
    refold.store_before_delete(text, refold.parsed_event, text),
    refold.reject(text, bigint, text, text, text),
    refold.ensure_room(bigint)
TO refold_capture;
GRANT EXECUTE ON FUNCTION
    refold.ensure_segments(bigint),
    refold.unread(pg_snapshot, pg_snapshot, xid8, bigint),
    refold.has_unread(pg_snapshot, xid8),
    refold.forget(text, bigint, integer),
    refold.forget_builds(integer)
TO refold_worker;
-- The function that metrics.freshness calls, with the privileges of its reader.
GRANT EXECUTE ON FUNCTION refold.unread_now() TO refold_analyst, refold_worker, refold_observer;
-- They return only numbers, and read the log for roles that may not.
GRANT EXECUTE ON FUNCTION refold.last_txid(), refold.log_size(bigint), refold.recorded_since(timestamptz)
TO refold_worker, refold_observer;

-- A role with this privilege could create a trigger on its own table and write ids into the ledger, whose events would
-- then count as duplicates. An existing trigger fires without the privilege.
REVOKE ALL ON FUNCTION refold.register_event_ids() FROM PUBLIC;

-- Only roles that create segments need the lock, which excludes all others until the transaction ends.
REVOKE ALL ON FUNCTION refold.lock_segments(boolean) FROM PUBLIC;
