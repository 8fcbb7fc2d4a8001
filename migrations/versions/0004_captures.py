"""Captured tables: what was generated for each, statements without events, and backfills."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from refold.store.schema import tables

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("CREATE SEQUENCE refold.capture_ordinals AS bigint CACHE 32")
    op.create_table(
        "capture_gaps",
        sa.Column("gap_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("capture_id", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.Column("txid", tables.Xid8(), server_default=sa.text("pg_current_xact_id()"), nullable=False),
        sa.Column(
            "operation",
            sa.Text(),
            nullable=True,
            comment="Operation of the statement without events; null: a pause by command.",
        ),
        sa.Column(
            "pauses",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=False,
            comment="The capture pauses while it is true.",
        ),
        sa.Column("sqlstate", sa.Text(), nullable=True, comment="SQLSTATE of the error; null: the capture was paused."),
        sa.Column("error", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "operation IN ('insert', 'update', 'delete', 'truncate')", name=op.f("capture_gaps_operation")
        ),
        sa.PrimaryKeyConstraint("gap_id", name=op.f("capture_gaps_pkey")),
        schema="refold",
        comment="Statements on captured tables without events, and pauses; a backfill that begins later closes them.",
    )
    op.create_index("capture_gaps_by_capture", "capture_gaps", ["capture_id", "gap_id"], unique=False, schema="refold")
    op.create_index(
        "capture_gaps_pausing",
        "capture_gaps",
        ["capture_id"],
        unique=False,
        schema="refold",
        postgresql_where=sa.text("pauses"),
    )
    op.create_table(
        "captures",
        sa.Column("capture_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("table_schema", sa.Text(), nullable=False),
        sa.Column("table_name", sa.Text(), nullable=False),
        sa.Column("definition", sa.Text(), nullable=False, comment="Text of its file, as it was deployed."),
        sa.Column("fingerprint", sa.Text(), nullable=False, comment="Hash of the SQL that was generated."),
        sa.Column("operations", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column(
            "key",
            postgresql.ARRAY(sa.Text()),
            nullable=False,
            comment="Columns that identify a row; empty: no backfill.",
        ),
        sa.Column(
            "columns",
            postgresql.ARRAY(sa.Text()),
            nullable=False,
            comment="Names and types of the table's columns at the deploy.",
        ),
        sa.Column(
            "functions",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=False,
            comment="MD5 of the body of each function, by its name.",
        ),
        sa.Column(
            "triggers",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=False,
            comment="Names of the triggers of each table, by the table.",
        ),
        sa.Column("two_phase", sa.Boolean(), nullable=False, comment="Whether its events come without a NOTIFY."),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("changed_by", sa.Text(), server_default=sa.text("session_user"), nullable=False),
        sa.CheckConstraint("name ~ '^[a-z_][a-z0-9_]{0,39}$'", name=op.f("captures_name")),
        sa.CheckConstraint(
            "operations <> '{}' AND operations <@ '{insert,update,delete,truncate}'::text[]",
            name=op.f("captures_operations"),
        ),
        sa.PrimaryKeyConstraint("capture_id", name=op.f("captures_pkey")),
        sa.UniqueConstraint("name", name=op.f("captures_name_key")),
        schema="refold",
        comment="Captured tables, with what was generated for each; `refold doctor` compares.",
    )
    op.create_table(
        "backfills",
        sa.Column("backfill_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("capture_id", sa.BigInteger(), nullable=False),
        sa.Column(
            "started_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column(
            "snapshot",
            tables.PgSnapshot(),
            nullable=False,
            comment="Gaps of transactions in it are closed at the end.",
        ),
        sa.Column(
            "last",
            postgresql.ARRAY(sa.Text()),
            nullable=True,
            comment="Key of the last row that was read; null: none yet.",
        ),
        sa.Column("seen", sa.BigInteger(), server_default=sa.text("0"), nullable=False, comment="Rows that were read."),
        sa.Column(
            "added",
            sa.BigInteger(),
            server_default=sa.text("0"),
            nullable=False,
            comment="Rows without an event until then.",
        ),
        sa.Column("stepped_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("added <= seen", name=op.f("backfills_added")),
        sa.ForeignKeyConstraint(
            ["capture_id"], ["refold.captures.capture_id"], name=op.f("backfills_capture_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("backfill_id", name=op.f("backfills_pkey")),
        schema="refold",
        comment="Backfills of captures: how far each has read its table, in the order of the key.",
    )
    op.create_index(
        "backfills_one_open",
        "backfills",
        ["capture_id"],
        unique=True,
        schema="refold",
        postgresql_where=sa.text("finished_at IS NULL"),
    )
