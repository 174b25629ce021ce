"""The posts of app/blog/, their imports and exports.

Revision: 0003_blog
Follows: 0002_accounts
"""

import sqlalchemy as sa
from alembic import op

revision = "0003_blog"
down_revision = "0002_accounts"
branch_labels = None
depends_on = None

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
    op.create_table(
        "post_import",
        *transfer_columns(),
        sa.Column("upload", sa.String(32), nullable=False),
        sa.Column("errors", sa.Integer(), nullable=False),
        sa.Column("problem", sa.String(300), nullable=True),
        sa.ForeignKeyConstraint(
            ["author_id"], ["user_account.id"], name="fk_post_import_author_id_user_account", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_post_import"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "post_export",
        *transfer_columns(),
        sa.Column("file_name", sa.String(80), nullable=False),
        sa.ForeignKeyConstraint(
            ["author_id"], ["user_account.id"], name="fk_post_export_author_id_user_account", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_post_export"),
        sqlite_autoincrement=True,
    )


def transfer_columns() -> list[sa.Column]:
    return [
        sa.Column("id", BIG_INTEGER, nullable=False),
        sa.Column("author_id", BIG_INTEGER, nullable=False),
        sa.Column("state", sa.String(10), nullable=False),
        sa.Column("total", sa.Integer(), nullable=False),
        sa.Column("done", sa.Integer(), nullable=False),
        sa.Column("created", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished", sa.DateTime(timezone=True), nullable=True),
    ]


def downgrade() -> None:
    op.drop_table("post_export")
    op.drop_table("post_import")
    op.drop_table("post")
