-- Privileges of the roles. Applied last, when every object exists.
GRANT USAGE ON SCHEMA refold
TO refold_producer, refold_worker, refold_analyst, refold_observer, refold_inspector, refold_door, refold_capture,
    refold_backfill;

-- A producer appends events and stores rejected input; only the database sets txid, position and recorded_at.
GRANT INSERT (event_id, user_id, action, ts, metadata, version) ON refold.events TO refold_producer;
GRANT USAGE ON SEQUENCE refold.events_position TO refold_producer;

-- A worker reads the log and keeps builds; it cannot write the log.
GRANT SELECT ON refold.events, refold.event_ids, refold.cold_ids, refold.cold_ranges, refold.rejected, refold.settings,
    refold.segments, refold.alembic_version, refold.forgotten, refold.acceptances, refold.lost_events
TO refold_worker;
GRANT SELECT ON SEQUENCE refold.events_position TO refold_worker;
GRANT SELECT, INSERT, UPDATE ON
    refold.builds, refold.deployments, refold.repairs, refold.dead_letters, refold.incidents, refold.sealed_slices
TO refold_worker;
GRANT SELECT, INSERT, UPDATE, DELETE ON refold.checksums, refold.audits, refold.quick_audits TO refold_worker;
-- Rows of cursors, changes of checksums and proofs are added, and old ones deleted.
GRANT SELECT, INSERT, DELETE ON refold.cursors, refold.checksum_changes, refold.proofs TO refold_worker;
GRANT SELECT, INSERT, UPDATE, DELETE ON refold.proof_hours, refold.totals, refold.total_marks, refold.latency_totals
TO refold_worker;
GRANT SELECT, UPDATE ON refold.counted_events TO refold_worker;
GRANT SELECT ON refold.totals, refold.total_marks, refold.latency_totals TO refold_observer;
GRANT SELECT ON refold.proofs_now, refold.proofs_by_hour TO refold_worker, refold_observer;
-- Needed to lock rows; no row is changed.
GRANT UPDATE (build_id) ON refold.checksum_changes TO refold_worker;
GRANT SELECT ON refold.builds_now TO refold_worker;
-- Records of empty slices are deleted.
GRANT DELETE ON refold.sealed_slices TO refold_worker;

-- A trigger of the log records large statements of producers; workers delete old records.
GRANT SELECT, DELETE ON refold.batches TO refold_worker;
GRANT SELECT ON refold.log_ends TO refold_worker;
-- The same trigger records traces: nobody else adds any.
GRANT SELECT, DELETE ON refold.traces TO refold_worker;
GRANT SELECT ON refold.traces, refold.cursors TO refold_observer;

GRANT SELECT, INSERT, UPDATE, DELETE ON refold.duties, refold.duplicates, refold.latencies TO refold_worker;

GRANT SELECT, INSERT, UPDATE, DELETE ON refold.retentions TO refold_worker;
GRANT SELECT ON refold.retentions TO refold_observer, refold_inspector;

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
    waiting_letters, sinks, floor, retained_from
) ON refold.builds_now TO refold_observer;
GRANT SELECT (build_id, projection, number, state, table_name, upkeep, upstream_id, deployment, dead_letters, floor)
    ON refold.builds TO refold_observer;
GRANT SELECT (
    incident_id, kind, subject, started_at, detected_at, detected_by, resolved_at, resolved_by, acknowledged_at,
    acknowledged_by
) ON refold.incidents TO refold_observer;
-- A reason that a person gave may name an event or a user.
GRANT SELECT (action_id, at, by, command, outcome, incident_id) ON refold.actions TO refold_observer;
GRANT SELECT (build_id, depth, began_at, ended_at, rows, slices, differed) ON refold.proofs TO refold_observer;
GRANT SELECT (name, started_at, ended_at, pid, failures) ON refold.duties TO refold_observer;
GRANT SELECT (dead_letter_id, build_id, state, attempts, sqlstate, first_failed_at, last_failed_at, ended_at)
    ON refold.dead_letters TO refold_observer;
GRANT SELECT (slice, sealed_at) ON refold.sealed_slices TO refold_observer;
GRANT SELECT (rejected_id, answer, times, first_seen, last_seen) ON refold.rejected TO refold_observer;
GRANT SELECT (repair_id, build_id, projection, relation, kind, repaired_by, repaired_at)
    ON refold.repairs TO refold_observer;

-- An inspector also sees the evidence, with its keys and texts. The rows of metrics: sql/roles/worker_grants.sql.
GRANT SELECT ON refold.builds, refold.builds_now, refold.deployments, refold.incidents, refold.duties, refold.dead_letters, refold.rejected,
    refold.repairs, refold.acceptances, refold.lost_events, refold.events, refold.event_ids, refold.actions,
    refold.checksums, refold.checksum_changes
TO refold_inspector;
GRANT SELECT ON refold.cold_ranges TO refold_observer, refold_inspector;
GRANT SELECT, INSERT, UPDATE (outcome, incident_id) ON refold.actions TO refold_worker, refold_capture, refold_backfill;

-- What holds producers back is for everybody to see.
GRANT SELECT, INSERT, UPDATE, DELETE ON refold.pressure_signals TO refold_worker;
GRANT SELECT ON refold.pressure
TO refold_producer, refold_door, refold_worker, refold_observer, refold_analyst, refold_backfill;

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

-- A backfill from files adds the events that it has staged, through the same door as a producer.
GRANT SELECT, INSERT, UPDATE ON refold.file_backfills TO refold_backfill;
GRANT SELECT ON refold.settings, refold.alembic_version TO refold_backfill;
GRANT SELECT ON refold.file_backfills TO refold_worker, refold_inspector;
-- Findings hold keys and values; names and options of files may tell more than an observer may see.
GRANT SELECT (
    backfill_id, name, state, total, invalid, first_ts, last_ts, created_at, checked_at, mark, accepted, duplicates,
    conflicts, rate_limit, freshness_limit, batch, per_second, because, ran, stepped_at, ended_at
) ON refold.file_backfills TO refold_observer;

-- Deliverers and the commands of sinks act as workers.
GRANT SELECT, INSERT, UPDATE, DELETE ON refold.sinks, refold.sink_checksums, refold.sink_keys, refold.undelivered
TO refold_worker;
GRANT SELECT, INSERT, DELETE ON refold.sink_states TO refold_worker;
-- What a receiver says may repeat a row; a file may name its address.
GRANT SELECT (sink_id, name, projection, grain, kind, once, created_at, changed_at, changed_by)
    ON refold.sinks TO refold_observer;
GRANT SELECT (
    sink_id, number, condition, following, build_id, epoch, holder, leased_until, failures, failing_since, retry_at,
    status, batch, delivered, delivered_at, given_epoch, given_number, passed, done, target,
    progress_txid, progress_position, progress_ordinal, at
) ON refold.sink_states TO refold_observer;
GRANT SELECT ON refold.sinks_now TO refold_worker, refold_inspector;
GRANT SELECT (
    sink_id, name, projection, grain, kind, number, condition, following, build_id, epoch, holder, leased_until, failures,
    failing_since, retry_at, status, batch, delivered, delivered_at, given_epoch,
    given_number, passed, done, target, progress_txid, progress_position, progress_ordinal, at
) ON refold.sinks_now TO refold_observer;
GRANT SELECT (undelivered_id, sink_id, state, attempts, status, first_failed_at, last_failed_at, ended_at)
    ON refold.undelivered TO refold_observer;
GRANT SELECT ON refold.sinks, refold.sink_states, refold.undelivered TO refold_inspector;

-- The name of a series may come from an event. An observer knows it by its number.
GRANT SELECT, INSERT, UPDATE, DELETE ON refold.series, refold.series_values, refold.routes TO refold_worker;
GRANT SELECT, INSERT, UPDATE ON refold.watch, refold.notices TO refold_worker;
GRANT SELECT (series_id, kind, began_on, judged_on, muted_until) ON refold.series TO refold_observer;
GRANT SELECT (series_id, at, value) ON refold.series_values TO refold_observer;
GRANT SELECT ON refold.watch TO refold_observer;
GRANT SELECT ON refold.series, refold.series_values TO refold_inspector;
-- What a receiver says may repeat what it was told, and a definition may name its address.
GRANT SELECT (name, kind, least, failures, retry_at) ON refold.routes TO refold_observer;
GRANT SELECT (notice_id, incident_id, change, route, level, due_at, attempts, sent_at, left_out)
    ON refold.notices TO refold_observer;
GRANT SELECT ON refold.routes, refold.notices TO refold_inspector;

-- The store is claimed by the owner; workers write the archive. What a store says may name its address.
GRANT SELECT, UPDATE (turns, holder, leased_until, failures, failing_since, retry_at, error) ON refold.archive_store
TO refold_worker;
GRANT SELECT, INSERT, UPDATE, DELETE ON refold.archives, refold.archive_slices TO refold_worker;
-- How far bases are.
GRANT SELECT, INSERT, UPDATE, DELETE ON refold.bases TO refold_worker;
GRANT SELECT ON refold.bases TO refold_observer, refold_inspector;
GRANT SELECT (singleton, location, owner, claimed_at, claimed_by, holder, leased_until, failures, failing_since, retry_at)
    ON refold.archive_store TO refold_observer;
GRANT SELECT ON refold.archives, refold.archive_slices TO refold_observer;
GRANT SELECT ON refold.archive_store, refold.archives, refold.archive_slices TO refold_inspector;
-- Contracts come from the files of `refold deploy`. A schema may hold values; the rule that was broken and the words of a
-- contract come from its file.
GRANT SELECT, INSERT, UPDATE (level, about, predicate, keys, conditions, rules) ON refold.contracts TO refold_worker;
GRANT SELECT, INSERT, DELETE ON refold.violations TO refold_worker;
GRANT SELECT ON refold.contracts TO refold_inspector, refold_capture;
GRANT SELECT ON refold.violations TO refold_inspector;
GRANT SELECT (action, version, digest, level, registered_at) ON refold.contracts TO refold_observer;
GRANT SELECT (action, version, rule, refused, hour, events) ON refold.violations TO refold_observer;
-- A verdict holds rows, and a reason that a person gave may name a user. Whoever reads a metric may call
-- refold.on_canary, which answers with one bit.
GRANT SELECT, INSERT, UPDATE ON refold.canaries, refold.canary_builds TO refold_worker;
GRANT SELECT (
    canary_id, started_by, started_at, steps, step, soak, expect, state, stepped_at, checked_at, ended_at,
    at_most, limited_at
) ON refold.canaries TO refold_observer;
GRANT SELECT (canary_id, projection, build_id, exposed, shown, dead_letters, marks) ON refold.canary_builds
TO refold_observer;
GRANT SELECT ON refold.canaries, refold.canary_builds TO refold_inspector;

-- Only the owner begins an erasure and changes the log; a worker finishes what needs neither. The key tells a person from
-- the HMAC to whoever guesses the name, and a worker reads the names anyway.
GRANT SELECT, UPDATE (step, finished_at, evidence) ON refold.erasures TO refold_worker;
GRANT SELECT ON refold.erased_events, refold.erasure_key TO refold_worker;
GRANT SELECT, INSERT, UPDATE (told_at, taken) ON refold.erasure_notices TO refold_worker;
GRANT SELECT ON refold.erasures, refold.erased_events, refold.erasure_notices TO refold_inspector;
GRANT SELECT (erasure_id, name, mode, requested_by, requested_at, step, finished_at) ON refold.erasures
TO refold_observer;

REVOKE ALL ON FUNCTION
    refold.judge(refold.parsed_event[]),
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
    refold.events_total(),
    refold.forget(text, bigint, integer),
    refold.forget_builds(integer),
    refold.detach_segment(bigint),
    refold.drop_purged(),
    refold.archived_ids(text[]),
    refold.add_cold_ids(bigint, bigint),
    refold.chill(bigint, bigint),
    refold.chill_step(),
    refold.silence_ids(text[])
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
    refold.admit_parsed(refold.parsed_event[]),
    refold.reject(text, bigint, text, text, text)
TO refold_backfill;
GRANT EXECUTE ON FUNCTION
    refold.ensure_segments(bigint),
    refold.unread(pg_snapshot, pg_snapshot, xid8, bigint),
    refold.has_unread(pg_snapshot, xid8),
    refold.forget(text, bigint, integer),
    refold.forget_builds(integer),
    refold.detach_segment(bigint),
    refold.drop_purged(),
    -- It only moves what the owner has purged.
    refold.chill_step()
TO refold_worker;
-- Which of some ids are known, by those who may read the ledger.
GRANT EXECUTE ON FUNCTION refold.archived_ids(text[]) TO refold_worker, refold_capture, refold_inspector;
-- The function that metrics.freshness calls, with the privileges of its reader.
GRANT EXECUTE ON FUNCTION refold.unread_now() TO refold_analyst, refold_worker, refold_observer;
-- They return only numbers, and read the log for roles that may not.
GRANT EXECUTE ON FUNCTION refold.last_txid(), refold.log_size(bigint), refold.recorded_since(timestamptz),
    refold.events_total()
TO refold_worker, refold_observer;

-- The same holds here: an incident of another table would tell routes what never was.
REVOKE ALL ON FUNCTION refold.write_notices() FROM PUBLIC;
-- A role with this privilege could create a trigger on its own table and write ids into the ledger, whose events would
-- then count as duplicates. An existing trigger fires without the privilege.
REVOKE ALL ON FUNCTION refold.register_event_ids() FROM PUBLIC;
-- And this one would count events that never came.
REVOKE ALL ON FUNCTION refold.check_contracts() FROM PUBLIC;

-- Only roles that create segments need the lock, which excludes all others until the transaction ends.
REVOKE ALL ON FUNCTION refold.lock_segments(boolean) FROM PUBLIC;
REVOKE ALL ON FUNCTION refold.create_segment(bigint, bigint) FROM PUBLIC;
