-- Write what routes are to be told of an incident, in the transaction that opens, changes or resolves it. It runs as the
-- owner: incidents are opened by several roles.
CREATE OR REPLACE FUNCTION refold.write_notices() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = refold, pg_catalog, pg_temp
AS $$
DECLARE
    levels CONSTANT text[] := ARRAY['none', 'ticket', 'page'];
    rule record;
    before record;
BEGIN
    IF NOT EXISTS (SELECT FROM refold.routes) THEN
        RETURN NULL;
    END IF;
    -- A route that is dropped meanwhile must fail no incident. In order, and before any notice, as a deploy drops them.
    PERFORM FROM refold.routes ORDER BY name FOR KEY SHARE;
    rule := refold.notice_rule(NEW.kind);
    IF NEW.resolved_at IS NULL THEN
        IF TG_OP = 'UPDATE' THEN
            before := refold.notice_rule(OLD.kind);
            -- What is worse than it seemed is not told as late as that would have been.
            UPDATE refold.notices AS n SET due_at = clock_timestamp() + rule.after
            WHERE n.incident_id = NEW.incident_id AND n.sent_at IS NULL AND n.due_at > clock_timestamp() + rule.after;
            IF array_position(levels, rule.level) <= array_position(levels, before.level) THEN
                RETURN NULL;
            END IF;
        END IF;
        INSERT INTO refold.notices (incident_id, change, route, level, due_at)
        SELECT NEW.incident_id, CASE TG_OP WHEN 'INSERT' THEN 'opened' ELSE 'escalated' END, r.name, rule.level,
               clock_timestamp() + rule.after
        FROM refold.routes AS r
        WHERE r.kind <> 'heartbeat' AND array_position(levels, rule.level) >= array_position(levels, r.least)
        ON CONFLICT ON CONSTRAINT notices_once DO NOTHING;
    ELSIF TG_OP = 'UPDATE' AND OLD.resolved_at IS NULL THEN
        -- Not due yet, and in nobody's hand: a sender counts its attempt before it sends. A time that is further off than
        -- any rule delays a notice was written by a clock that was ahead.
        UPDATE refold.notices AS n SET sent_at = clock_timestamp(), left_out = true
        WHERE n.incident_id = NEW.incident_id AND n.sent_at IS NULL AND n.attempts = 0
          AND n.due_at > clock_timestamp() AND n.due_at <= clock_timestamp() + interval '1 hour';
        INSERT INTO refold.notices (incident_id, change, route, level, due_at)
        SELECT DISTINCT NEW.incident_id, 'resolved', n.route, rule.level, clock_timestamp()
        FROM refold.notices AS n
        WHERE n.incident_id = NEW.incident_id AND NOT n.left_out
        ON CONFLICT ON CONSTRAINT notices_once DO NOTHING;
    END IF;
    RETURN NULL;
END
$$;
