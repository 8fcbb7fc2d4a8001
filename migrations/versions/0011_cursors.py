"""Cursors, and changes of figures, in rows that are added."""

import sqlalchemy as sa
from alembic import op

import refold.store.schema.tables

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

MOVED = (
    "done",
    "target",
    "progress_txid",
    "progress_position",
    "progress_ordinal",
    "events_applied",
    "pages_applied",
    "apply_ms",
    "applied_at",
    "moved_at",
)


def upgrade() -> None:
    _cursors()
    _figure_changes()
    _held_snapshots()


def _cursors() -> None:
    op.create_table(
        "cursors",
        sa.Column("build_id", sa.BigInteger(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column(
            "done",
            refold.store.schema.tables.PgSnapshot(),
            server_default=sa.text("'1:1:'::pg_snapshot"),
            nullable=False,
        ),
        sa.Column("target", refold.store.schema.tables.PgSnapshot(), nullable=True),
        sa.Column("progress_txid", refold.store.schema.tables.Xid8(), nullable=True),
        sa.Column("progress_position", sa.BigInteger(), nullable=True),
        sa.Column("progress_ordinal", sa.Integer(), nullable=True),
        sa.Column("events_applied", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("pages_applied", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("apply_ms", sa.Double(), server_default=sa.text("0"), nullable=False),
        sa.Column("applied_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("moved_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("progress_txid IS NULL OR target IS NOT NULL", name=op.f("cursors_progress_within_run")),
        sa.CheckConstraint(
            "num_nulls(progress_txid, progress_position, progress_ordinal) IN (0, 3)",
            name=op.f("cursors_progress_whole"),
        ),
        sa.PrimaryKeyConstraint("build_id", "number", name=op.f("cursors_pkey")),
        schema="refold",
        postgresql_with={"autovacuum_vacuum_scale_factor": "0", "autovacuum_vacuum_threshold": "5000"},
        comment="Which events each build has applied: a row for every page, of which the newest counts.",
    )
    columns = ", ".join(MOVED)
    # Whoever moves a cursor meanwhile waits, and finds no such column then.
    op.execute("LOCK TABLE refold.builds IN ACCESS EXCLUSIVE MODE")
    op.execute(
        f"INSERT INTO refold.cursors (build_id, number, {columns}) SELECT build_id, 0, {columns} FROM refold.builds"
    )
    op.execute("DROP TRIGGER IF EXISTS guard_cursor ON refold.builds")
    op.execute("DROP TRIGGER IF EXISTS refuse_foreign ON refold.builds")
    _let_go_of_freshness()
    for column in MOVED:
        op.drop_column("builds", column, schema="refold")
    op.execute(
        "COMMENT ON TABLE refold.builds IS"
        " 'One row a build: a physical table that holds a projection at one fingerprint. Pages lock it.'"
    )


def _let_go_of_freshness() -> None:
    """The view stays, with what stands on it, but reads nothing until `sql/` is applied: a moment later."""
    op.execute(
        """
        DO $$
        DECLARE
            columns text := (
                SELECT string_agg(format('NULL::%s AS %I', format_type(atttypid, atttypmod), attname), ', '
                                  ORDER BY attnum)
                FROM pg_attribute
                WHERE attrelid = to_regclass('metrics.freshness') AND attnum > 0 AND NOT attisdropped);
        BEGIN
            IF columns IS NOT NULL THEN
                EXECUTE format('CREATE OR REPLACE VIEW metrics.freshness AS SELECT %s WHERE false', columns);
            END IF;
        END
        $$
        """
    )


def _figure_changes() -> None:
    op.create_table(
        "figure_changes",
        sa.Column("build_id", sa.BigInteger(), nullable=False),
        sa.Column("relation", sa.SmallInteger(), nullable=False),
        sa.Column("slice", sa.Integer(), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.Numeric(), nullable=False),
        schema="refold",
        postgresql_with={"autovacuum_vacuum_scale_factor": "0", "autovacuum_vacuum_threshold": "5000"},
        comment="What pages have changed in figures since they were last added up.",
    )
    op.create_index("figure_changes_by_build", "figure_changes", ["build_id"], schema="refold")
    op.execute(
        "COMMENT ON TABLE refold.figures IS 'What a build has written into a slice, and read: rows, and the sum of"
        " hashes; figure_changes come on top.'"
    )


def _held_snapshots() -> None:
    # Others add kinds too: this one comes on top of what is there.
    op.execute(
        """
        DO $$
        DECLARE
            had text := (SELECT pg_get_constraintdef(oid) FROM pg_constraint
                         WHERE conrelid = 'refold.incidents'::regclass AND conname = 'incidents_kind');
        BEGIN
            ALTER TABLE refold.incidents DROP CONSTRAINT incidents_kind;
            EXECUTE 'ALTER TABLE refold.incidents ADD CONSTRAINT incidents_kind '
                || replace(had, $_$'held_back'::text$_$, $_$'held_back'::text, 'held_snapshot'::text$_$);
        END
        $$
        """
    )
    op.add_column(
        "settings",
        sa.Column("held_snapshot_after", sa.Integer(), server_default=sa.text("60"), nullable=False),
        schema="refold",
    )
    op.create_check_constraint(
        op.f("settings_held_snapshot_after"), "settings", "held_snapshot_after >= 0", schema="refold"
    )
