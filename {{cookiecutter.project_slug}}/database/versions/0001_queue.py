"""The queue's messages and statistics, and what jobs have done once.

Revision: 0001_queue
Follows: nothing
"""

import sqlalchemy as sa
from alembic import op

revision = "0001_queue"
down_revision = None
branch_labels = None
depends_on = None

BIG_INTEGER = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "queue_message",
        sa.Column("id", BIG_INTEGER, nullable=False),
        sa.Column("queue", sa.String(100), nullable=False),
        sa.Column("actor", sa.String(200), nullable=False),
        sa.Column("message_id", sa.String(36), nullable=False),
        sa.Column("state", sa.SmallInteger(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("due", sa.Double(), nullable=False),
        sa.Column("owner", sa.String(100), nullable=True),
        sa.Column("deliveries", sa.Integer(), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_queue_message"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_queue_message_order", "queue_message", ["queue", "state", "priority", "due", "id"])
    op.create_index("ix_queue_message_due", "queue_message", ["queue", "state", "due"])
    op.create_table(
        "queue_minute",
        sa.Column("minute", sa.DateTime(timezone=True), nullable=False),
        sa.Column("queue", sa.String(100), nullable=False),
        sa.Column("waiting", sa.Integer(), nullable=True),
        sa.Column("done", sa.Integer(), nullable=False),
        sa.Column("failed", sa.Integer(), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("minute", "queue", name="pk_queue_minute"),
    )
    op.create_table(
        "done_once",
        sa.Column("key", sa.String(200), nullable=False),
        sa.Column("done", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_done_once"),
    )
    op.create_index("ix_done_once_done", "done_once", ["done"])


def downgrade() -> None:
    op.drop_table("done_once")
    op.drop_table("queue_minute")
    op.drop_table("queue_message")
