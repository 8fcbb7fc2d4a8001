"""Tokens of the HTTP door."""

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
