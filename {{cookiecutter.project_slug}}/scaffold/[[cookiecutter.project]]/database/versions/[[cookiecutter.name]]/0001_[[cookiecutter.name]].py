"""The table of app/[[ cookiecutter.name ]]/."""

import sqlalchemy as sa
from alembic import op

revision = "0001_[[ cookiecutter.name ]]"
down_revision = None
branch_labels = ("[[ cookiecutter.name ]]",)
depends_on = ("0001_accounts",)

BIG_INTEGER = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "[[ cookiecutter.one ]]",
        sa.Column("id", BIG_INTEGER, primary_key=True),
        sa.Column("owner_id", BIG_INTEGER, sa.ForeignKey("user_account.id", ondelete="CASCADE"), nullable=False),
        sa.Column("title", sa.String(200), nullable=False),
        sa.Column("notes", sa.Text(), nullable=False),
        sa.Column("created", sa.DateTime(timezone=True), nullable=False),
        sa.Column("archived", sa.DateTime(timezone=True)),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_[[ cookiecutter.one ]]_owner_id_id", "[[ cookiecutter.one ]]", ["owner_id", "id"])


def downgrade() -> None:
    op.drop_table("[[ cookiecutter.one ]]")
