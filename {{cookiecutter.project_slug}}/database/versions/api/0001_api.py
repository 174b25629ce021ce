"""The tables of app/api/."""

import sqlalchemy as sa
from alembic import op

revision = "0001_api"
down_revision = None
branch_labels = ("api",)
depends_on = ("0001_accounts",)

BIG_INTEGER = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "api_token",
        sa.Column("id", BIG_INTEGER, primary_key=True),
        sa.Column("owner_id", BIG_INTEGER, sa.ForeignKey("user_account.id", ondelete="CASCADE"), nullable=False),
        sa.Column("name", sa.String(60), nullable=False),
        sa.Column("scope", sa.String(10), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False, unique=True),
        sa.Column("ends", sa.DateTime(timezone=True), nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_api_token_owner_id", "api_token", ["owner_id"])
    op.create_table(
        "api_answer",
        sa.Column("owner_id", BIG_INTEGER, sa.ForeignKey("user_account.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("key", sa.String(100), primary_key=True),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("headers", sa.JSON(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("created", sa.DateTime(timezone=True), nullable=False),
    )


def downgrade() -> None:
    op.drop_table("api_answer")
    op.drop_table("api_token")
