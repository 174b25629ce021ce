"""The imports and exports that users start, of app/transfers.py."""

import sqlalchemy as sa
from alembic import op

revision = "0002_transfers"
down_revision = "0001_infrastructure"
depends_on = ("0001_accounts",)

BIG_INTEGER = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "transfer",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("owner_id", BIG_INTEGER, sa.ForeignKey("user_account.id", ondelete="CASCADE"), nullable=False),
        sa.Column("disk", sa.String(20), nullable=False),
        sa.Column("file", sa.String(200), nullable=False),
        sa.Column("state", sa.String(10), nullable=False),
        sa.Column("done", sa.Integer(), nullable=False),
        sa.Column("total", sa.Integer(), nullable=False),
        sa.Column("mistakes", sa.JSON(), nullable=False),
        sa.Column("created", sa.DateTime(timezone=True), nullable=False),
    )


def downgrade() -> None:
    op.drop_table("transfer")
