"""The queue's messages.

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
        sa.Column("state", sa.Integer(), nullable=False),
        sa.Column("due", sa.Double(), nullable=False),
        sa.Column("owner", sa.String(32), nullable=True),
        sa.Column("deliveries", sa.Integer(), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_queue_message"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_queue_message_claim", "queue_message", ["queue", "state", "due"])


def downgrade() -> None:
    op.drop_table("queue_message")
