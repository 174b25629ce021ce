"""The queue's messages, the scheduler's ledger, and the counts of rate limits and jobs."""

import sqlalchemy as sa
from alembic import op

revision = "0001_infrastructure"
down_revision = None
branch_labels = ("infrastructure",)


def upgrade() -> None:
    op.create_table(
        "queue_message",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
        sa.Column("queue", sa.String(100), nullable=False),
        sa.Column("actor", sa.String(200), nullable=False),
        sa.Column("message_id", sa.String(36), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("dead", sa.Boolean(), nullable=False),
        sa.Column("due", sa.Double(), nullable=False),
        sa.Column("wait", sa.Double(), nullable=False),
        sa.Column("owner", sa.String(100)),
        sa.Column("returns", sa.Integer(), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.Column("error", sa.Text()),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_queue_message_due", "queue_message", ["queue", "dead", "due"])
    op.create_table(
        "schedule_slot",
        sa.Column("schedule", sa.String(100), primary_key=True),
        sa.Column("slot", sa.DateTime(timezone=True), primary_key=True),
        sa.Column("line", sa.Text()),
        sa.Column("outcome", sa.String(10), nullable=False),
        sa.Column("sent", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished", sa.DateTime(timezone=True)),
        sa.Column("message_id", sa.String(36)),
    )
    op.create_table(
        "rate_limit",
        sa.Column("key", sa.String(255), primary_key=True),
        sa.Column("hits", sa.Integer(), nullable=False),
        sa.Column("started", sa.Double(), nullable=False),
        sa.Column("expires", sa.Double(), nullable=False),
    )
    op.create_table(
        "job_count",
        sa.Column("hour", sa.BigInteger(), primary_key=True),
        sa.Column("actor", sa.String(200), primary_key=True),
        sa.Column("outcome", sa.String(10), primary_key=True),
        sa.Column("jobs", sa.Integer(), nullable=False),
    )


def downgrade() -> None:
    op.drop_table("job_count")
    op.drop_table("rate_limit")
    op.drop_table("schedule_slot")
    op.drop_table("queue_message")
