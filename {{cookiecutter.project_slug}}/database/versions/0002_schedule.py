"""The scheduler's ledger of slots.

Revision: 0002_schedule
Follows: 0001_queue
"""

import sqlalchemy as sa
from alembic import op

revision = "0002_schedule"
down_revision = "0001_queue"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "schedule",
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("definition", sa.String(200), nullable=False),
        sa.Column("dealt_with", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_schedule"),
    )
    op.create_table(
        "schedule_slot",
        sa.Column("schedule", sa.String(100), nullable=False),
        sa.Column("slot", sa.DateTime(timezone=True), nullable=False),
        sa.Column("outcome", sa.String(10), nullable=False),
        sa.Column("sent", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished", sa.DateTime(timezone=True), nullable=True),
        sa.Column("message_id", sa.String(36), nullable=True),
        sa.PrimaryKeyConstraint("schedule", "slot", name="pk_schedule_slot"),
    )
    op.create_index("ix_schedule_slot_sent", "schedule_slot", ["sent"])


def downgrade() -> None:
    op.drop_table("schedule_slot")
    op.drop_table("schedule")
