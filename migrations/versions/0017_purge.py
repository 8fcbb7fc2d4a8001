"""The purge of the log: bases of builds, and what tells them from the log."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.add_column(
        "builds",
        sa.Column("floor", sa.BigInteger(), server_default=sa.text("1"), nullable=False),
        schema="refold",
    )
    op.add_column(
        "dead_letters",
        sa.Column(
            "event",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=True,
            comment="The event, copied before its segment leaves the log.",
        ),
        schema="refold",
    )
    op.create_table(
        "bases",
        sa.Column("build_id", sa.BigInteger(), nullable=False),
        sa.Column(
            "folded", sa.BigInteger(), nullable=False, comment="First position that is not in the base's tables."
        ),
        sa.Column(
            "upto", sa.BigInteger(), nullable=False, comment="End of the segment that is being folded into them."
        ),
        sa.Column(
            "events",
            sa.BigInteger(),
            server_default=sa.text("0"),
            nullable=False,
            comment="Events of it that were read.",
        ),
        sa.Column(
            "ids",
            sa.Numeric(),
            server_default=sa.text("0"),
            nullable=False,
            comment="Sum of the hashes of their positions.",
        ),
        sa.Column(
            "hash",
            sa.Numeric(),
            server_default=sa.text("0"),
            nullable=False,
            comment="Sum of the hashes of these events.",
        ),
        sa.Column(
            "stale",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=False,
            comment="An event of this segment has become a dead letter, or was released, since it was folded.",
        ),
        sa.CheckConstraint("folded <= upto", name=op.f("bases_range")),
        sa.ForeignKeyConstraint(
            ["build_id"], ["refold.builds.build_id"], name=op.f("bases_build_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("build_id", name=op.f("bases_pkey")),
        schema="refold",
        comment="How far events are folded into the bases of builds, ahead of the purge that makes these count.",
    )
    op.add_column(
        "archives",
        sa.Column("purged_at", TIME, nullable=True, comment="When the segment left the log."),
        schema="refold",
    )
    op.drop_constraint(op.f("archives_state"), "archives", schema="refold", type_="check")
    op.create_check_constraint(
        op.f("archives_state"),
        "archives",
        "state IN ('begun', 'written', 'verified', 'purged', 'replaced', 'gone')",
        schema="refold",
    )
    op.drop_constraint(op.f("archives_verified"), "archives", schema="refold", type_="check")
    op.create_check_constraint(
        op.f("archives_verified"),
        "archives",
        "state NOT IN ('verified', 'purged')"
        " OR num_nulls(bytes, sha256, events, ids, hash, proved_at, verified_at) = 0",
        schema="refold",
    )
    op.create_check_constraint(
        op.f("archives_purged"), "archives", "(state = 'purged') = (purged_at IS NOT NULL)", schema="refold"
    )
    op.create_index(
        "archives_purged",
        "archives",
        ["lower_position"],
        unique=True,
        schema="refold",
        postgresql_where=sa.text("state = 'purged'"),
    )
    op.add_column("settings", sa.Column("keep_log", sa.Interval(), nullable=True), schema="refold")
    op.create_check_constraint(op.f("settings_keep_log"), "settings", "keep_log >= '0 s'::interval", schema="refold")
    op.drop_constraint(op.f("incidents_kind"), "incidents", schema="refold", type_="check")
    op.create_check_constraint(
        op.f("incidents_kind"),
        "incidents",
        "kind IN ('drift', 'dead_letters', 'stalled', 'lag', 'held_back', 'held_snapshot', 'missed_notification',"
        " 'log_damage', 'impure_transform', 'foreign_cluster', 'hot_key', 'hidden', 'pressure', 'capture_gap', 'sink',"
        " 'undelivered', 'outbox_collapsed', 'anomaly', 'archive', 'archive_damage', 'backfill_paused',"
        " 'canary_aborted', 'purge')",
        schema="refold",
    )
