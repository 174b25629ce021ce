"""Counters of rate-limited requests.

Revision: 0003_rate_limits
Follows: 0002_schedule
"""

import sqlalchemy as sa
from alembic import op

revision = "0003_rate_limits"
down_revision = "0002_schedule"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "rate_limit",
        sa.Column("key", sa.String(255), nullable=False),
        sa.Column("hits", sa.Integer(), nullable=False),
        sa.Column("expires", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_rate_limit"),
    )
    op.create_index("ix_rate_limit_expires", "rate_limit", ["expires"])


def downgrade() -> None:
    op.drop_table("rate_limit")
