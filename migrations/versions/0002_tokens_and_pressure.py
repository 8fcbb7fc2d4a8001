"""Tokens of the HTTP door, and what holds producers back."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "tokens",
        sa.Column("token_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False, comment="How often the name was rotated, from 1."),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column(
            "digest", postgresql.BYTEA(), nullable=False, comment="SHA-256 of the token, whose text is kept nowhere."
        ),
        sa.Column("hint", sa.Text(), nullable=False, comment="The first characters of the token."),
        sa.Column(
            "source", sa.Text(), nullable=False, comment="Name of the producer, recorded with input that is rejected."
        ),
        sa.Column("origins", postgresql.ARRAY(sa.Text()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("rate", sa.Integer(), nullable=True, comment="Most events a second."),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("created_by", sa.Text(), server_default=sa.text("session_user"), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True, comment="To the minute."),
        sa.CheckConstraint("kind IN ('secret', 'write_key')", name=op.f("tokens_kind")),
        sa.CheckConstraint("char_length(name) BETWEEN 1 AND 63", name=op.f("tokens_name")),
        sa.CheckConstraint("octet_length(digest) = 32", name=op.f("tokens_digest")),
        sa.CheckConstraint("rate > 0", name=op.f("tokens_rate")),
        sa.CheckConstraint("kind = 'secret' OR rate IS NOT NULL OR origins <> '{}'", name=op.f("tokens_bounded")),
        sa.PrimaryKeyConstraint("token_id", name=op.f("tokens_pkey")),
        sa.UniqueConstraint("digest", name=op.f("tokens_digest_key")),
        sa.UniqueConstraint("name", "generation", name=op.f("tokens_name_generation_key")),
        schema="refold",
        comment="Tokens of the HTTP door.",
    )
    op.create_table(
        "pressure_signals",
        sa.Column("signal", sa.Text(), nullable=False),
        sa.Column("level", sa.SmallInteger(), nullable=False, comment="0 fine, 1 bulk waits, 2 producers are refused."),
        sa.Column("value", sa.Double(), nullable=False, comment="What was measured: seconds, or the used part."),
        sa.Column("slow_at", sa.Double(), nullable=False, comment="Value from which bulk waits."),
        sa.Column("stop_at", sa.Double(), nullable=True, comment="Value from which producers are refused."),
        sa.Column(
            "since",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="When the level was reached, UTC.",
        ),
        sa.Column(
            "seen_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="When it was last measured, UTC.",
        ),
        sa.CheckConstraint("level BETWEEN 0 AND 2", name=op.f("pressure_signals_level")),
        sa.PrimaryKeyConstraint("signal", name=op.f("pressure_signals_pkey")),
        schema="refold",
        comment="What holds producers back: one row a signal, measured by a duty of workers. See refold.pressure.",
        postgresql_with={"fillfactor": "50"},
    )
    op.add_column("settings", sa.Column("lag_stop", sa.Integer(), nullable=True), schema="refold")
    op.add_column("settings", sa.Column("disk_limit", sa.BigInteger(), nullable=True), schema="refold")
    op.create_check_constraint(op.f("settings_lag_stop"), "settings", "lag_stop > lag_limit", schema="refold")
    op.create_check_constraint(op.f("settings_disk_limit"), "settings", "disk_limit > 0", schema="refold")
    op.drop_constraint(op.f("incidents_kind"), "incidents", schema="refold", type_="check")
    op.create_check_constraint(
        op.f("incidents_kind"),
        "incidents",
        "kind IN ('drift', 'dead_letters', 'stalled', 'lag', 'held_back', 'held_snapshot', 'missed_notification',"
        " 'log_damage', 'impure_transform', 'foreign_cluster', 'hot_key', 'hidden', 'pressure')",
        schema="refold",
    )
