"""Erasures of people, and the key by which they are known again."""

import secrets

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)
TEXTS = postgresql.ARRAY(sa.Text())


def upgrade() -> None:
    op.create_table(
        "erasure_key",
        sa.Column("singleton", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("inner_pad", postgresql.BYTEA(), nullable=False),
        sa.Column("outer_pad", postgresql.BYTEA(), nullable=False),
        sa.CheckConstraint("singleton", name=op.f("erasure_key_singleton")),
        sa.PrimaryKeyConstraint("singleton", name=op.f("erasure_key_pkey")),
        schema="refold",
        comment="The key of the HMAC-SHA256 by which erased people and events are known again, as its two pads.",
    )
    # From the start, so that a backup from before the first erasure has it too.
    key = secrets.token_bytes(32).ljust(64, b"\0")
    op.get_bind().execute(
        sa.text("INSERT INTO refold.erasure_key (inner_pad, outer_pad) VALUES (:inner_pad, :outer_pad)"),
        {"inner_pad": bytes(one ^ 0x36 for one in key), "outer_pad": bytes(one ^ 0x5C for one in key)},
    )
    op.create_table(
        "erasures",
        sa.Column("erasure_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column(
            "name",
            sa.Uuid(),
            server_default=sa.text("gen_random_uuid()"),
            nullable=False,
            comment="Names it in every database, export and store.",
        ),
        sa.Column("subject", postgresql.BYTEA(), nullable=False, comment="HMAC-SHA256 of the user id."),
        sa.Column("mode", sa.Text(), nullable=False),
        sa.Column("fields", TEXTS, nullable=False, comment="Fields of metadata in which others name the person."),
        sa.Column(
            "macs",
            postgresql.ARRAY(postgresql.BYTEA()),
            nullable=False,
            comment="HMAC-SHA256 of what each of these fields holds then.",
        ),
        sa.Column("keeps", TEXTS, nullable=False, comment="Fields of the person's metadata that stay."),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("requested_by", sa.Text(), server_default=sa.text("session_user"), nullable=False),
        sa.Column("requested_at", TIME, server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.Column(
            "step", sa.Text(), server_default=sa.text("'log'"), nullable=False, comment="What is done next, or `done`."
        ),
        sa.Column("finished_at", TIME, nullable=True),
        sa.Column(
            "evidence",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
            comment="What was found and done; the proof, once it is done.",
        ),
        sa.CheckConstraint("mode IN ('anonymise', 'delete')", name=op.f("erasures_mode")),
        sa.CheckConstraint("step IN ('log', 'archive', 'vacuum', 'proof', 'done')", name=op.f("erasures_step")),
        sa.CheckConstraint("(step = 'done') = (finished_at IS NOT NULL)", name=op.f("erasures_finished")),
        sa.CheckConstraint("octet_length(subject) = 32", name=op.f("erasures_subject")),
        sa.CheckConstraint("cardinality(fields) = cardinality(macs)", name=op.f("erasures_fields")),
        sa.CheckConstraint("reason <> ''", name=op.f("erasures_reason")),
        sa.PrimaryKeyConstraint("erasure_id", name=op.f("erasures_pkey")),
        sa.UniqueConstraint("name", name=op.f("erasures_name_key")),
        schema="refold",
        comment="Erasures of people: who asked for each, why, how far it is, and the proof. Never the person.",
    )
    op.create_index(
        "erasures_unfinished",
        "erasures",
        ["subject"],
        unique=True,
        schema="refold",
        postgresql_where=sa.text("finished_at IS NULL"),
    )
    op.create_table(
        "erased_events",
        sa.Column("erasure_id", sa.BigInteger(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("mac", postgresql.BYTEA(), nullable=False, comment="HMAC-SHA256 of the event's id, as it came."),
        sa.Column(
            "mention",
            sa.Boolean(),
            nullable=False,
            comment="Another's event, of which only the fields that name the person change.",
        ),
        sa.Column(
            "renamed",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=False,
            comment="Its id held the person: the ledger has another in its place.",
        ),
        sa.Column(
            "witness",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=False,
            comment="Changed last: until then the log itself says who the person is, and nothing else has to.",
        ),
        sa.Column("done", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("digest", sa.BigInteger(), nullable=True, comment="Of what the log has in its place; NULL: nothing."),
        sa.ForeignKeyConstraint(
            ["erasure_id"], ["refold.erasures.erasure_id"], name=op.f("erased_events_erasure_id_fkey")
        ),
        sa.CheckConstraint("octet_length(mac) = 32", name=op.f("erased_events_mac")),
        sa.PrimaryKeyConstraint("erasure_id", "position", name=op.f("erased_events_pkey")),
        schema="refold",
        comment="Events that erasures changed or removed. The ledger has the digest 0 for each.",
    )
    op.create_index("erased_events_by_position", "erased_events", ["position"], schema="refold")
    op.create_index(
        "erased_events_renamed", "erased_events", ["mac"], schema="refold", postgresql_where=sa.text("renamed")
    )
    op.add_column(
        "settings",
        sa.Column("erasure_keeps", TEXTS, server_default=sa.text("'{}'::text[]"), nullable=False),
        schema="refold",
    )
