-- Facts: what each event was worth, by a function that may fail.
SELECT event_id, user_id, ts, public.price(metadata ->> 'price') AS price FROM events
