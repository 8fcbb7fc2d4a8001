"""Retention of what records faults; barriers for views that leave rows out."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "forgotten",
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("what", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("detecting", sa.Double(), server_default=sa.text("0"), nullable=False),
        sa.Column("recovering", sa.Double(), server_default=sa.text("0"), nullable=False),
        sa.CheckConstraint("what IN ('rejected', 'repairs', 'incidents')", name=op.f("forgotten_what")),
        sa.PrimaryKeyConstraint("day", "what", "kind", name=op.f("forgotten_pkey")),
        schema="refold",
        comment="How many rows were removed because they were old, by day (UTC) and kind: reports count them all the "
        "same.",
    )
    op.create_index("repairs_by_build", "repairs", ["build_id", "repaired_at"], schema="refold")
    for name, days in (("rejected_days", 90), ("repair_days", 400), ("incident_days", 400), ("build_days", 90)):
        column = sa.Column(name, sa.Integer(), server_default=sa.text(str(days)), nullable=False)
        op.add_column("settings", column, schema="refold")
    op.create_check_constraint(
        op.f("settings_retention"),
        "settings",
        "least(rejected_days, repair_days, incident_days, build_days) > 0",
        schema="refold",
    )
    # Views of HAVING that are live already; those to come are made with it.
    op.execute(
        r"""
        DO $$
        DECLARE
            found record;
        BEGIN
            FOR found IN
                SELECT v.viewname FROM pg_views AS v JOIN refold.builds AS b ON b.projection = v.viewname
                WHERE v.schemaname = 'metrics' AND b.state = 'live' AND b.upkeep IN ('merge', 'members')
                  AND v.definition ~ '\mWHERE\M'
            LOOP
                -- The views are the worker's.
                SET LOCAL ROLE refold_worker;
                EXECUTE format('ALTER VIEW metrics.%I SET (security_barrier)', found.viewname);
                SET LOCAL ROLE refold_owner;
            END LOOP;
        END
        $$
        """
    )
