"""The accounts of app/accounts/."""

import sqlalchemy as sa
from alembic import op

revision = "0001_accounts"
down_revision = None
branch_labels = ("accounts",)

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


def downgrade() -> None:
    op.drop_table("user_account")
