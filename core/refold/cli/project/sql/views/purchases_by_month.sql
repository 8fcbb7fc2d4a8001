-- A view on top of a metric: ordinary SQL, computed when it is read. The file's name is the view's name.
CREATE OR REPLACE VIEW metrics.purchases_by_month AS
SELECT
    date_trunc('month', day)::date AS month,
    sum(purchases)                 AS purchases,
    sum(revenue)                   AS revenue
FROM metrics.purchases_by_day
GROUP BY month;

COMMENT ON VIEW metrics.purchases_by_month IS 'Purchases and revenue per month.';
COMMENT ON COLUMN metrics.purchases_by_month.month IS 'First day of the month (UTC)';
COMMENT ON COLUMN metrics.purchases_by_month.purchases IS 'How many';
COMMENT ON COLUMN metrics.purchases_by_month.revenue IS 'In the currency of `amount`';
