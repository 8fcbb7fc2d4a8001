"""What people did; and incidents that a person has taken on."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "actions",
        sa.Column("action_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column(
            "at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
            comment="When it began.",
        ),
        sa.Column(
            "by",
            sa.Text(),
            server_default=sa.text("session_user"),
            nullable=False,
            comment="The login, or the proxy's user.",
        ),
        sa.Column("command", sa.Text(), nullable=False, comment="Words of the command, also where a page was used."),
        sa.Column(
            "arguments",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
        ),
        sa.Column("outcome", sa.Text(), nullable=True, comment="What came of it; NULL: it runs, or was lost."),
        sa.Column("incident_id", sa.BigInteger(), nullable=True, comment="The incident that it was about."),
        sa.CheckConstraint("command <> ''", name=op.f("actions_command")),
        sa.CheckConstraint("jsonb_typeof(arguments) = 'object'", name=op.f("actions_arguments")),
        sa.PrimaryKeyConstraint("action_id", name=op.f("actions_pkey")),
        schema="refold",
        comment="What people did, by commands and on the dashboard.",
    )
    op.create_index("actions_by_time", "actions", ["at"], unique=False, schema="refold")
    for column in (
        sa.Column("acknowledged_at", sa.DateTime(timezone=True), nullable=True, comment="When a person took it on."),
        sa.Column("acknowledged_by", sa.Text(), nullable=True),
    ):
        op.add_column("incidents", column, schema="refold")
    op.create_check_constraint(
        op.f("incidents_acknowledged_by_somebody"),
        "incidents",
        "(acknowledged_at IS NULL) = (acknowledged_by IS NULL)",
        schema="refold",
    )
