"""The database: engine, sessions, the models' base, migrations, and the tables that queue and scheduler live in."""

from database.base import Base, PrimaryKey, utc_now
from database.engine import connect, sessions

__all__ = ["Base", "PrimaryKey", "connect", "sessions", "utc_now"]
