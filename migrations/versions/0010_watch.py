"""Watched series, and notices of incidents."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "series",
        sa.Column("series_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column(
            "kind", sa.Text(), nullable=False, comment="What it counts; series of a kind are compared with each other."
        ),
        sa.Column(
            "name", sa.Text(), nullable=False, comment="The action, the source, or the column and value of a metric."
        ),
        sa.Column("began_on", sa.Date(), nullable=False, comment="Its first day (UTC)."),
        sa.Column(
            "judged_on", sa.Date(), nullable=True, comment="The last day (UTC) that was judged; a day is judged once."
        ),
        sa.Column("muted_until", TIME, nullable=True, comment="Until then it opens no incident."),
        sa.PrimaryKeyConstraint("series_id", name=op.f("series_pkey")),
        sa.UniqueConstraint("kind", "name", name="series_once"),
        schema="refold",
        comment="Series that are watched for what is unusual.",
    )
    op.create_table(
        "series_values",
        sa.Column("series_id", sa.BigInteger(), nullable=False),
        sa.Column("at", TIME, nullable=False, comment="Begin of the hour; of a metric, of the day."),
        sa.Column("value", sa.Double(), nullable=False, comment="Events, or the value of the metric."),
        sa.Column(
            "delays",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=True,
            comment="Of a source: events by the bucket of recorded_at - ts.",
        ),
        sa.ForeignKeyConstraint(
            ["series_id"], ["refold.series.series_id"], name=op.f("series_values_series_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("series_id", "at", name=op.f("series_values_pkey")),
        schema="refold",
        postgresql_with={"fillfactor": "70"},
        comment="Values of the series, of the last 90 days.",
    )
    op.create_table(
        "watch",
        sa.Column("singleton", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("began_at", TIME, server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.Column(
            "read_at",
            TIME,
            nullable=True,
            comment="All events recorded until then are counted, but for those of open transactions.",
        ),
        sa.Column("done", sa.Text(), nullable=False, comment="Cursor in the log."),
        sa.Column("target", sa.Text(), nullable=True),
        sa.Column("progress_txid", sa.BigInteger(), nullable=True),
        sa.Column("progress_position", sa.BigInteger(), nullable=True),
        sa.Column("progress_ordinal", sa.Integer(), nullable=True),
        sa.CheckConstraint("singleton", name=op.f("watch_singleton")),
        sa.PrimaryKeyConstraint("singleton", name=op.f("watch_pkey")),
        schema="refold",
        comment="How far the log has been read for the series.",
    )
    op.create_table(
        "routes",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("least", sa.Text(), nullable=False, comment="Least level of the incidents that it is told."),
        sa.Column(
            "definition", sa.Text(), nullable=False, comment="Its part of notices.toml, as JSON, without secrets."
        ),
        sa.Column("failures", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("retry_at", TIME, nullable=True, comment="The next attempt, after a failure."),
        sa.Column("error", sa.Text(), nullable=True, comment="What the receiver said last."),
        sa.CheckConstraint("name ~ '^[a-z_][a-z0-9_]{0,39}$'", name=op.f("routes_name")),
        sa.CheckConstraint("kind IN ('webhook', 'alertmanager', 'heartbeat')", name=op.f("routes_kind")),
        sa.CheckConstraint("least IN ('page', 'ticket', 'none')", name=op.f("routes_least")),
        sa.PrimaryKeyConstraint("name", name=op.f("routes_pkey")),
        schema="refold",
        comment="Receivers of notices.",
    )
    op.create_table(
        "notices",
        sa.Column("notice_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("incident_id", sa.BigInteger(), nullable=False),
        sa.Column("change", sa.Text(), nullable=False),
        sa.Column("route", sa.Text(), nullable=False),
        sa.Column("level", sa.Text(), nullable=False),
        sa.Column(
            "due_at", TIME, nullable=False, comment="Not sent before: what ends by itself until then is not told."
        ),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("sent_at", TIME, nullable=True, comment="When the receiver confirmed it, or it was left out."),
        sa.Column(
            "left_out",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=False,
            comment="Ended before it was due.",
        ),
        sa.Column("error", sa.Text(), nullable=True),
        sa.CheckConstraint("change IN ('opened', 'escalated', 'resolved')", name=op.f("notices_change")),
        sa.CheckConstraint("sent_at IS NOT NULL OR NOT left_out", name=op.f("notices_left_out")),
        sa.ForeignKeyConstraint(
            ["incident_id"],
            ["refold.incidents.incident_id"],
            name=op.f("notices_incident_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(["route"], ["refold.routes.name"], name=op.f("notices_route_fkey"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("notice_id", name=op.f("notices_pkey")),
        sa.UniqueConstraint("incident_id", "change", "route", name="notices_once"),
        schema="refold",
        comment="What routes are told of incidents, written in the transaction of the incident.",
    )
    op.create_index(
        "notices_to_send",
        "notices",
        ["route", "notice_id"],
        unique=False,
        schema="refold",
        postgresql_where=sa.text("sent_at IS NULL"),
    )
    op.add_column(
        "settings",
        sa.Column("anomaly_budget", sa.Double(), server_default=sa.text("1"), nullable=False),
        schema="refold",
    )
    op.create_check_constraint(
        op.f("settings_anomaly_budget"),
        "settings",
        "anomaly_budget >= 0 AND anomaly_budget <= 1000",
        schema="refold",
    )
    op.drop_constraint(op.f("incidents_kind"), "incidents", schema="refold", type_="check")
    op.create_check_constraint(
        op.f("incidents_kind"),
        "incidents",
        "kind IN ('drift', 'dead_letters', 'stalled', 'lag', 'held_back', 'held_snapshot', 'missed_notification',"
        " 'log_damage', 'impure_transform', 'foreign_cluster', 'hot_key', 'hidden', 'pressure', 'capture_gap', 'sink',"
        " 'undelivered', 'outbox_collapsed', 'anomaly')",
        schema="refold",
    )
