"""The posts of app/blog/."""

import sqlalchemy as sa
from alembic import op

revision = "0001_blog"
down_revision = None
branch_labels = ("blog",)
depends_on = ("0001_accounts",)

BIG_INTEGER = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "post",
        sa.Column("id", BIG_INTEGER, primary_key=True),
        sa.Column("author_id", BIG_INTEGER, sa.ForeignKey("user_account.id", ondelete="CASCADE"), nullable=False),
        sa.Column("title", sa.String(200), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("created", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated", sa.DateTime(timezone=True)),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_post_author_id_id", "post", ["author_id", "id"])


def downgrade() -> None:
    op.drop_table("post")
