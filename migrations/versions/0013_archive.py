"""The archive of sealed segments."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from refold.store.schema import tables

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "archive_store",
        sa.Column("singleton", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("location", sa.Text(), nullable=False, comment="The store that was claimed."),
        sa.Column(
            "owner", sa.Text(), nullable=False, comment="Names the claim, in the store and in the names of files."
        ),
        sa.Column(
            "turns",
            postgresql.ARRAY(sa.Text()),
            nullable=False,
            comment="What the store may hold as the newest turn of this owner.",
        ),
        sa.Column("claimed_at", TIME, server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.Column("claimed_by", sa.Text(), server_default=sa.text("session_user"), nullable=False),
        sa.Column("holder", sa.Text(), nullable=True, comment="Who writes the archive."),
        sa.Column("leased_until", TIME, nullable=True),
        sa.Column("failures", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("failing_since", TIME, nullable=True),
        sa.Column("retry_at", TIME, nullable=True, comment="The next attempt."),
        sa.Column("error", sa.Text(), nullable=True, comment="What the store said last."),
        sa.CheckConstraint("(failures = 0) = (failing_since IS NULL)", name=op.f("archive_store_failing")),
        sa.CheckConstraint("(holder IS NULL) = (leased_until IS NULL)", name=op.f("archive_store_lease")),
        sa.CheckConstraint("singleton", name=op.f("archive_store_singleton")),
        sa.PrimaryKeyConstraint("singleton", name=op.f("archive_store_pkey")),
        schema="refold",
        comment="One row, once an archive is claimed: whose the store is, who writes, and since when it fails.",
    )
    op.create_table(
        "archives",
        sa.Column("lower_position", sa.BigInteger(), nullable=False, comment="First position of the segment."),
        sa.Column("upper_position", sa.BigInteger(), nullable=False, comment="First position behind it."),
        sa.Column("generation", sa.Integer(), nullable=False, comment="From 1; each file of a segment has its own."),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column(
            "location", sa.Text(), nullable=False, comment="Name of the file in the store. No other attempt has it."
        ),
        sa.Column(
            "rewritten",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=False,
            comment="The file has transaction ids from before a recovery, and the log has new ones.",
        ),
        sa.Column("bytes", sa.BigInteger(), nullable=True, comment="Size of the file."),
        sa.Column("sha256", postgresql.BYTEA(), nullable=True, comment="SHA-256 of the file."),
        sa.Column("events", sa.BigInteger(), nullable=True),
        sa.Column(
            "upto", tables.Xid8(), nullable=True, comment="Greatest transaction id of its events, as the log has them."
        ),
        sa.Column("ids", sa.Numeric(), nullable=True, comment="Sum of the hashes of the ids."),
        sa.Column("hash", sa.Numeric(), nullable=True, comment="Sum of the hashes of the whole events."),
        sa.Column("first_ts", TIME, nullable=True),
        sa.Column("last_ts", TIME, nullable=True),
        sa.Column("began_at", TIME, server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.Column("written_at", TIME, nullable=True),
        sa.Column(
            "proved_at",
            TIME,
            nullable=True,
            comment="When its rows were read back, and agreed with the sealed checksums.",
        ),
        sa.Column(
            "verified_at", TIME, nullable=True, comment="When the checksums of its border slices had agreed too."
        ),
        sa.Column(
            "checked_at", TIME, nullable=True, comment="When the file was last compared with its size and SHA-256."
        ),
        sa.CheckConstraint(
            "state <> 'verified' OR num_nulls(bytes, sha256, events, ids, hash, proved_at, verified_at) = 0",
            name=op.f("archives_verified"),
        ),
        sa.CheckConstraint(
            "state <> 'written' OR num_nulls(written_at, bytes, sha256) = 0", name=op.f("archives_written")
        ),
        sa.CheckConstraint(
            "state IN ('begun', 'written', 'verified', 'replaced', 'gone')", name=op.f("archives_state")
        ),
        sa.CheckConstraint("generation > 0", name=op.f("archives_generation")),
        sa.CheckConstraint("lower_position < upper_position", name=op.f("archives_range")),
        sa.PrimaryKeyConstraint("lower_position", "generation", name=op.f("archives_pkey")),
        sa.UniqueConstraint("location", name=op.f("archives_location_key")),
        schema="refold",
        comment="The manifest of the archive: files that hold segments of the log, and how far each is proved.",
    )
    op.create_index(
        "archives_current",
        "archives",
        ["lower_position"],
        unique=True,
        schema="refold",
        postgresql_where=sa.text("state IN ('begun', 'written', 'verified')"),
    )
    op.create_table(
        "archive_slices",
        sa.Column("lower_position", sa.BigInteger(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("slice", sa.Integer(), nullable=False),
        sa.Column("events", sa.BigInteger(), nullable=False),
        sa.Column("upto", tables.Xid8(), nullable=False),
        sa.Column("ids", sa.Numeric(), nullable=False),
        sa.Column("hash", sa.Numeric(), nullable=False),
        sa.ForeignKeyConstraint(
            ["lower_position", "generation"],
            ["refold.archives.lower_position", "refold.archives.generation"],
            name=op.f("archive_slices_lower_position_generation_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("lower_position", "generation", "slice", name=op.f("archive_slices_pkey")),
        schema="refold",
        comment="Checksums of the slices that each proved file holds, or of its part of a slice; see sealed_slices.",
    )
    op.create_index("archive_slices_by_slice", "archive_slices", ["slice"], unique=False, schema="refold")
    op.add_column("settings", sa.Column("archive", sa.Text(), nullable=True), schema="refold")
    op.add_column(
        "settings",
        sa.Column("archive_after", sa.Integer(), server_default=sa.text("86400"), nullable=False),
        schema="refold",
    )
    op.alter_column(
        "settings",
        "segment_size",
        existing_type=sa.BIGINT(),
        server_default=sa.text("1048576"),
        existing_nullable=False,
        schema="refold",
    )
    # A new deployment has no segment yet; an older one keeps its size.
    op.execute(
        "UPDATE refold.settings SET segment_size = 1048576"
        " WHERE NOT EXISTS (SELECT FROM pg_inherits WHERE inhparent = 'refold.events'::regclass)"
    )
    op.create_check_constraint(op.f("settings_archive_after"), "settings", "archive_after >= 0", schema="refold")
    op.drop_constraint(op.f("incidents_kind"), "incidents", schema="refold", type_="check")
    op.create_check_constraint(
        op.f("incidents_kind"),
        "incidents",
        "kind IN ('drift', 'dead_letters', 'stalled', 'lag', 'held_back', 'held_snapshot', 'missed_notification',"
        " 'log_damage', 'impure_transform', 'foreign_cluster', 'hot_key', 'hidden', 'pressure', 'capture_gap', 'sink',"
        " 'undelivered', 'outbox_collapsed', 'anomaly', 'archive', 'archive_damage')",
        schema="refold",
    )
