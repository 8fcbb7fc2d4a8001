"""Sets of members: what was counted stands in a column whose name no key can have."""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        DO $$
        DECLARE
            found regclass;
        BEGIN
            FOR found IN
                SELECT c.oid
                FROM pg_class AS c
                JOIN refold.builds AS b ON c.relname ~ ('^' || b.table_name || '__m[0-9]+$')
                JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attname = 'member' AND NOT a.attisdropped
                WHERE c.relnamespace = to_regnamespace('refold_builds') AND c.relkind = 'r' AND b.upkeep = 'members'
            LOOP
                -- The tables are the worker's.
                SET LOCAL ROLE refold_worker;
                EXECUTE format('ALTER TABLE %s RENAME COLUMN member TO member__', found);
                SET LOCAL ROLE refold_owner;
            END LOOP;
        END
        $$
    """)
