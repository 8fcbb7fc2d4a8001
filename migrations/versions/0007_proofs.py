"""Proofs: when audits have covered all slices of a build; and totals, which never fall."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from refold.store.schema.tables import PgSnapshot, Xid8

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "proofs",
        sa.Column("build_id", sa.BigInteger(), nullable=False),
        sa.Column("depth", sa.Text(), nullable=False),
        sa.Column("began_at", sa.DateTime(timezone=True), nullable=False, comment="Instant of its oldest snapshot."),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("upstream_id", sa.BigInteger(), nullable=True, comment="The build that it read; NULL: the log."),
        sa.Column("rows", sa.BigInteger(), nullable=False, comment="Rows of all its tables, as its checksums say."),
        sa.Column("slices", sa.Integer(), nullable=False),
        sa.Column("differed", sa.Integer(), nullable=False, comment="Slices that differed; all are healed."),
        sa.CheckConstraint("depth IN ('quick', 'deep')", name=op.f("proofs_depth")),
        sa.CheckConstraint("began_at <= ended_at", name=op.f("proofs_in_order")),
        sa.CheckConstraint("least(rows, slices, differed) >= 0", name=op.f("proofs_counted")),
        sa.PrimaryKeyConstraint("build_id", "depth", "began_at", name=op.f("proofs_pkey")),
        schema="refold",
        comment="Audits that covered all slices of a build, whose differences are healed; see refold.proofs_now.",
    )
    op.create_table(
        "proof_hours",
        sa.Column("build_id", sa.BigInteger(), nullable=False),
        sa.Column("depth", sa.Text(), nullable=False),
        sa.Column("hour", sa.DateTime(timezone=True), nullable=False),
        sa.Column("proofs", sa.Integer(), nullable=False),
        sa.Column("differed", sa.BigInteger(), nullable=False, comment="Sum of the slices that differed."),
        sa.PrimaryKeyConstraint("build_id", "depth", "hour", name=op.f("proof_hours_pkey")),
        schema="refold",
        comment="Older proofs of each build, by the hour of their end.",
    )
    op.add_column(
        "audits",
        sa.Column(
            "differed",
            sa.Integer(),
            server_default=sa.text("0"),
            nullable=False,
        ),
        schema="refold",
    )
    op.add_column(
        "quick_audits",
        sa.Column(
            "began_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="Instant of the first snapshot of this round; NULL: not known.",
        ),
        schema="refold",
    )
    op.create_index(
        "incidents_of_the_log",
        "incidents",
        ["resolved_at"],
        unique=False,
        schema="refold",
        postgresql_where=sa.text("kind = 'log_damage'"),
    )
    op.create_table(
        "totals",
        sa.Column("what", sa.Text(), nullable=False),
        sa.Column("projection", sa.Text(), nullable=False, comment="Empty: of none."),
        sa.Column("kind", sa.Text(), nullable=False, comment="Answer, kind of difference or of incident; empty: none."),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("what IN ('duplicates', 'rejected', 'healed', 'incidents')", name=op.f("totals_what")),
        sa.PrimaryKeyConstraint("what", "projection", "kind", name=op.f("totals_pkey")),
        schema="refold",
        postgresql_with={"fillfactor": "50"},
        comment="Numbers of all records that there ever were, also of those that are deleted. A duty adds to them.",
    )
    op.create_table(
        "total_marks",
        sa.Column("what", sa.Text(), nullable=False),
        sa.Column(
            "upto", sa.BigInteger(), nullable=False, comment="Number of the last record, or minute, that is counted."
        ),
        sa.Column(
            "next", sa.BigInteger(), nullable=False, comment="Up to which is counted next, once it cannot change."
        ),
        sa.Column("passed", Xid8(), nullable=True),
        sa.PrimaryKeyConstraint("what", name=op.f("total_marks_pkey")),
        schema="refold",
        postgresql_with={"fillfactor": "50"},
        comment="Up to where refold.totals and refold.latency_totals count.",
    )
    op.create_table(
        "counted_events",
        sa.Column("singleton", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column(
            "events", sa.BigInteger(), nullable=False, comment="Events that the log has taken, up to the cursor."
        ),
        sa.Column(
            "done", PgSnapshot(), nullable=True, comment="NULL: the next run begins at the present end of the log."
        ),
        sa.Column("target", PgSnapshot(), nullable=True),
        sa.Column("progress_txid", Xid8(), nullable=True),
        sa.Column("progress_position", sa.BigInteger(), nullable=True),
        sa.CheckConstraint("singleton", name=op.f("counted_events_singleton")),
        sa.PrimaryKeyConstraint("singleton", name=op.f("counted_events_pkey")),
        schema="refold",
        postgresql_with={"fillfactor": "50"},
        comment="One row: the number of events, and a cursor that says which are counted. See refold.events_total.",
    )
    op.create_table(
        "latency_totals",
        sa.Column("build_id", sa.BigInteger(), nullable=False),
        sa.Column("stage", sa.Text(), nullable=False),
        sa.Column(
            "counts",
            postgresql.ARRAY(sa.BigInteger()),
            nullable=False,
            comment="By the edges of refold.model.quantiles.EDGES.",
        ),
        sa.Column("seconds", sa.Double(), nullable=False, comment="Sum of the durations."),
        sa.PrimaryKeyConstraint("build_id", "stage", name=op.f("latency_totals_pkey")),
        schema="refold",
        postgresql_with={"fillfactor": "50"},
        comment="The latencies of all minutes that are counted, also of those that have been deleted since.",
    )
    # From the first event on it counts exactly. A log that is longer is not read for this: see count_events.
    op.execute(
        "INSERT INTO refold.counted_events (events, done)"
        " SELECT 0, CASE WHEN NOT EXISTS (SELECT FROM refold.events) THEN pg_snapshot '1:1:' END"
    )
