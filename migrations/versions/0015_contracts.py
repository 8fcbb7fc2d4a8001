"""Contracts of events, and what broke them."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)
BYTEWISE = sa.Text(collation="C")


def upgrade() -> None:
    op.create_table(
        "contracts",
        sa.Column("action", BYTEWISE, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("schema", postgresql.JSONB(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("level", sa.Text(), nullable=False),
        sa.Column("about", postgresql.JSONB(), server_default=sa.text("'{}'::jsonb"), nullable=False),
        sa.Column("predicate", postgresql.JSONPATH(), nullable=False),
        sa.Column("keys", postgresql.ARRAY(sa.Text()), nullable=True),
        sa.Column("conditions", postgresql.ARRAY(postgresql.JSONPATH()), nullable=False),
        sa.Column("rules", postgresql.JSONB(), nullable=False),
        sa.Column("registered_at", TIME, server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.CheckConstraint("char_length(action) BETWEEN 1 AND 255", name=op.f("contracts_action")),
        sa.CheckConstraint("version BETWEEN 1 AND 32767", name=op.f("contracts_version")),
        sa.CheckConstraint("level IN ('off', 'warn', 'enforce')", name=op.f("contracts_level")),
        sa.CheckConstraint("cardinality(conditions) = jsonb_array_length(rules)", name=op.f("contracts_rules")),
        sa.PrimaryKeyConstraint("action", "version", name=op.f("contracts_pkey")),
        schema="refold",
        postgresql_with={"toast_tuple_target": "8160"},
        comment="Contracts: what the metadata of a version of an action must be.",
    )
    op.create_table(
        "violations",
        sa.Column("action", BYTEWISE, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("rule", sa.Text(), nullable=False),
        sa.Column("refused", sa.Boolean(), nullable=False),
        sa.Column("hour", TIME, nullable=False),
        sa.Column("events", sa.BigInteger(), nullable=False),
        sa.Column("event_id", BYTEWISE, nullable=False),
        sa.Column("first_at", TIME, server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.Column("last_at", TIME, server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.Column("folded", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        schema="refold",
        comment="Events that broke their contract: a row for each statement and rule, later a row for each hour.",
    )
    op.create_index("violations_by_hour", "violations", ["hour"], unique=False, schema="refold")
    op.add_column(
        "settings",
        sa.Column("unknown_versions", sa.Text(), server_default=sa.text("'warn'"), nullable=False),
        schema="refold",
    )
    op.create_check_constraint(
        op.f("settings_unknown_versions"),
        "settings",
        "unknown_versions IN ('accept', 'warn', 'reject')",
        schema="refold",
    )
