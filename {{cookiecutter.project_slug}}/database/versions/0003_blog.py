"""The posts of app/blog/."""

import sqlalchemy as sa
from alembic import op

revision = "0003_blog"
down_revision = "0002_accounts"

BIG_INTEGER = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "post",
        sa.Column("id", BIG_INTEGER, nullable=False),
        sa.Column("author_id", BIG_INTEGER, nullable=False),
        sa.Column("title", sa.String(200), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("created", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["author_id"], ["user_account.id"], name="fk_post_author_id_user_account", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_post"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_post_author_id_id", "post", ["author_id", "id"])


def downgrade() -> None:
    op.drop_table("post")
