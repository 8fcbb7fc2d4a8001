"""Sinks: what leaves the database, and what their receivers were given."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "builds",
        sa.Column(
            "sinks",
            postgresql.ARRAY(sa.BigInteger()),
            server_default=sa.text("'{}'::bigint[]"),
            nullable=False,
        ),
        schema="refold",
    )
    op.create_table(
        "sinks",
        sa.Column("sink_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("projection", sa.Text(), nullable=False),
        sa.Column("grain", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("definition", sa.Text(), nullable=False, comment="Text of its file, as it was deployed."),
        sa.Column(
            "once",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=False,
            comment="Whether another build gives no old row.",
        ),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("changed_by", sa.Text(), server_default=sa.text("session_user"), nullable=False),
        sa.CheckConstraint("name ~ '^[a-z_][a-z0-9_]{0,39}$'", name=op.f("sinks_name")),
        sa.CheckConstraint("grain IN ('rows', 'events')", name=op.f("sinks_grain")),
        sa.PrimaryKeyConstraint("sink_id", name=op.f("sinks_pkey")),
        sa.UniqueConstraint("name", name=op.f("sinks_name_key")),
        schema="refold",
        comment="Sinks: each delivers a metric to a receiver. Deliverers lock its row for a moment.",
    )
    op.create_table(
        "sink_states",
        sa.Column("sink_id", sa.BigInteger(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False, comment="The greatest of a sink is its state."),
        sa.Column("condition", sa.Text(), nullable=False),
        sa.Column("following", sa.Boolean(), nullable=False, comment="False: slices are compared before messages."),
        sa.Column("build_id", sa.BigInteger(), nullable=True, comment="The build whose rows are delivered."),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("holder", sa.Text(), nullable=True, comment="Who delivers."),
        sa.Column("leased_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("failures", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("failing_since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("retry_at", sa.DateTime(timezone=True), nullable=True, comment="The next attempt."),
        sa.Column("error", sa.Text(), nullable=True, comment="What the receiver said."),
        sa.Column("status", sa.Text(), nullable=True),
        sa.Column("batch", sa.Integer(), nullable=False, comment="Most rows of a delivery."),
        sa.Column("delivered", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("delivered_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "tokens",
            postgresql.ARRAY(sa.Text()),
            nullable=False,
            comment="What the receiver may hold as its owner's token.",
        ),
        sa.Column(
            "given_epoch", sa.BigInteger(), nullable=True, comment="The version that the receiver confirmed last."
        ),
        sa.Column("given_number", sa.BigInteger(), nullable=True),
        sa.Column("done", sa.Text(), nullable=True, comment="Cursor of a sink of events: what it has delivered."),
        sa.Column("target", sa.Text(), nullable=True),
        sa.Column("progress_txid", sa.BigInteger(), nullable=True),
        sa.Column("progress_position", sa.BigInteger(), nullable=True),
        sa.Column("progress_ordinal", sa.Integer(), nullable=True),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.CheckConstraint("condition IN ('active', 'paused', 'stopped')", name=op.f("sink_states_condition")),
        sa.CheckConstraint("(failures = 0) = (failing_since IS NULL)", name=op.f("sink_states_failing")),
        sa.CheckConstraint("batch > 0", name=op.f("sink_states_batch")),
        sa.ForeignKeyConstraint(
            ["sink_id"], ["refold.sinks.sink_id"], name=op.f("sink_states_sink_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("sink_id", "number", name=op.f("sink_states_pkey")),
        schema="refold",
        comment="States of sinks: a row for every step, of which the newest counts.",
        postgresql_with={"autovacuum_vacuum_scale_factor": "0", "autovacuum_vacuum_threshold": "5000"},
    )
    op.create_table(
        "sink_checksums",
        sa.Column("sink_id", sa.BigInteger(), nullable=False),
        sa.Column("slice", sa.Integer(), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=True, comment="NULL: not known."),
        sa.Column("hash", sa.Numeric(), nullable=True),
        sa.CheckConstraint("(rows IS NULL) = (hash IS NULL)", name=op.f("sink_checksums_whole")),
        sa.ForeignKeyConstraint(
            ["sink_id"], ["refold.sinks.sink_id"], name=op.f("sink_checksums_sink_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("sink_id", "slice", name=op.f("sink_checksums_pkey")),
        schema="refold",
        comment="Checksums of the slices as the receiver has confirmed them.",
        postgresql_with={"fillfactor": "50"},
    )
    op.create_table(
        "sink_keys",
        sa.Column("sink_id", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False, comment="MD5 of the key."),
        sa.Column("key", postgresql.JSONB(), nullable=False),
        sa.Column("slice", sa.Integer(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["sink_id"], ["refold.sinks.sink_id"], name=op.f("sink_keys_sink_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("sink_id", "digest", name=op.f("sink_keys_pkey")),
        schema="refold",
        comment="Keys that a receiver was given that cannot tell what it has.",
        postgresql_with={"fillfactor": "70"},
    )
    op.create_index("sink_keys_by_slice", "sink_keys", ["sink_id", "slice"], unique=False, schema="refold")
    op.create_table(
        "undelivered",
        sa.Column("undelivered_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("sink_id", sa.BigInteger(), nullable=False),
        sa.Column("key", postgresql.JSONB(), nullable=False, comment="Key of the row that the receiver refuses."),
        sa.Column("slice", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), server_default=sa.text("'waiting'"), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("error", sa.Text(), nullable=False, comment="What the receiver said."),
        sa.Column("first_failed_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("last_failed_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ended_by", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True, comment="Why it was dropped."),
        sa.CheckConstraint("state IN ('waiting', 'delivered', 'dropped')", name=op.f("undelivered_state")),
        sa.CheckConstraint("(state = 'waiting') = (ended_at IS NULL)", name=op.f("undelivered_ended")),
        sa.CheckConstraint("(state = 'dropped') = (reason IS NOT NULL)", name=op.f("undelivered_reason")),
        sa.ForeignKeyConstraint(
            ["sink_id"], ["refold.sinks.sink_id"], name=op.f("undelivered_sink_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("undelivered_id", name=op.f("undelivered_pkey")),
        schema="refold",
        comment="Rows that a receiver refused, set aside so that the others go on.",
    )
    op.create_index(
        "undelivered_waiting",
        "undelivered",
        ["sink_id", sa.text("md5(key::text)")],
        unique=True,
        schema="refold",
        postgresql_where=sa.text("state = 'waiting'"),
    )
    op.add_column(
        "settings",
        sa.Column("outbox_messages", sa.Integer(), server_default=sa.text("10000"), nullable=False),
        schema="refold",
    )
    op.add_column(
        "settings",
        sa.Column("outbox_mib", sa.Integer(), server_default=sa.text("256"), nullable=False),
        schema="refold",
    )
    op.add_column(
        "settings",
        sa.Column("outbox_hours", sa.Integer(), server_default=sa.text("24"), nullable=False),
        schema="refold",
    )
    op.create_check_constraint(
        op.f("settings_outbox"), "settings", "least(outbox_messages, outbox_mib, outbox_hours) > 0", schema="refold"
    )
    op.drop_constraint(op.f("incidents_kind"), "incidents", schema="refold", type_="check")
    op.create_check_constraint(
        op.f("incidents_kind"),
        "incidents",
        "kind IN ('drift', 'dead_letters', 'stalled', 'lag', 'held_back', 'held_snapshot', 'missed_notification',"
        " 'log_damage', 'impure_transform', 'foreign_cluster', 'hot_key', 'hidden', 'pressure', 'capture_gap', 'sink',"
        " 'undelivered', 'outbox_collapsed')",
        schema="refold",
    )
