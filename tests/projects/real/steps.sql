-- How far each user of the shop came, in two funnels without a window.
SELECT
    user_id,
    window_funnel(NULL, ts, action = 'catalog', action = 'cart', action = 'payment_done') AS paid,
    window_funnel(
        NULL, ts,
        action = 'catalog', action IN ('product1', 'product2'), action = 'cart', action = 'payment_done'
    ) AS paid_after_looking
FROM events
GROUP BY user_id
