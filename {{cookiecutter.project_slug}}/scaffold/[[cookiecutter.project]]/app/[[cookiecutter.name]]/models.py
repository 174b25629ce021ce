"""The table of [[ cookiecutter.things ]], and how they are found."""

from datetime import datetime

import svcs
from sqlalchemy import ForeignKey, Index, Select, String, Text, func, or_, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from app.accounts import User
from app.paging import row_number
from database import Base, PrimaryKey, utc_now


class [[ cookiecutter.model ]](Base):
    """What only its owner sees. Newer rows have higher numbers."""

    __tablename__ = "[[ cookiecutter.one ]]"
    __table_args__ = (Index("ix_[[ cookiecutter.one ]]_owner_id_id", "owner_id", "id"), {"sqlite_autoincrement": True})

    id: Mapped[PrimaryKey]
    owner_id: Mapped[int] = mapped_column(ForeignKey(User.id, ondelete="CASCADE"))
    title: Mapped[str] = mapped_column(String(200))
    notes: Mapped[str] = mapped_column(Text)
    created: Mapped[datetime] = mapped_column(default=utc_now)
    archived: Mapped[datetime | None]


def find_[[ cookiecutter.name ]](owner_id: int, text: str = "") -> Select[ [[ cookiecutter.model ]] ]:
    """Those of a user that hold a text, in any case, in their title or notes."""
    query = select([[ cookiecutter.model ]]).where([[ cookiecutter.model ]].owner_id == owner_id)
    if not text:
        return query
    columns = ([[ cookiecutter.model ]].title, [[ cookiecutter.model ]].notes)
    return query.where(or_(*(column.icontains(text, autoescape=True) for column in columns)))


def find_[[ cookiecutter.one ]](owner_id: int, number: int) -> [[ cookiecutter.model ]] | None:
    query = find_[[ cookiecutter.name ]](owner_id).where([[ cookiecutter.model ]].id == row_number(number))
    return svcs.flask.get(Session).scalar(query)


def count_[[ cookiecutter.name ]](owner_id: int) -> int:
    query = select(func.count()).select_from([[ cookiecutter.model ]]).where([[ cookiecutter.model ]].owner_id == owner_id)
    return svcs.flask.get(Session).scalar(query) or 0
