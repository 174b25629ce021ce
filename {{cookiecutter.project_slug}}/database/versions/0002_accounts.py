"""The accounts of app/accounts/, and the imports and exports that users start, of app/transfers.py."""

import sqlalchemy as sa
from alembic import op

revision = "0002_accounts"
down_revision = "0001_infrastructure"

BIG_INTEGER = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "user_account",
        sa.Column("id", BIG_INTEGER, primary_key=True),
        sa.Column("username", sa.String(30), nullable=False, unique=True),
        sa.Column("email", sa.String(254), nullable=False),
        sa.Column("password_hash", sa.String(200), nullable=False),
        sa.Column("session_key", sa.String(43), nullable=False, unique=True),
        sa.Column("created", sa.DateTime(timezone=True), nullable=False),
        sa.Column("is_admin", sa.Boolean(), nullable=False),
        sa.Column("picture", sa.String(80)),
        sa.Column("picture_upload", sa.String(40)),
    )
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
    op.drop_table("user_account")
