"""Error pages for people, RFC 9457 problem documents for programs."""

import json
import logging
import sqlite3

from flask import Flask, current_app, render_template, request
from jinja2.filters import do_filesizeformat
from sqlalchemy.exc import DataError, DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from werkzeug import Response, exceptions

import storage
from app.extensions import wants_json

logger = logging.getLogger(__name__)


def register(app: Flask) -> None:
    app.register_error_handler(exceptions.HTTPException, http_error)
    app.register_error_handler(DBAPIError, database_error)
    app.register_error_handler(PoolTimeout, database_error)
    app.register_error_handler(storage.StorageError, storage_error)


def http_error(error: exceptions.HTTPException) -> Response:
    """The answer to an error with a status; its own headers, such as Retry-After, are kept."""
    original = getattr(error, "original_exception", None)
    if isinstance(original, DBAPIError | PoolTimeout):
        # It was raised where Flask asks no handler: by the commit after the view, or by another error's page.
        return database_error(original)
    if isinstance(error, exceptions.RequestEntityTooLarge) and (most := request.max_content_length):
        error.description = f"This is too large: at most {do_filesizeformat(most)} can be sent here."
    response = error.get_response()
    if error.response is not None:
        return response
    if wants_json():
        problem = {"type": "about:blank", "title": error.name, "status": error.code, "detail": error.description}
        response.data, response.content_type = json.dumps(problem), "application/problem+json"
    elif not isinstance(error, exceptions.SecurityError | exceptions.BadHost):  # Without a host, a page has no links.
        response.data = _page(error, error.code or 500)
    return response


def database_error(error: DBAPIError | PoolTimeout) -> Response:
    """503 while the database cannot be reached; 400 for a value that it cannot hold, such as NUL on PostgreSQL."""
    if isinstance(error, DataError):
        return http_error(exceptions.BadRequest("The database cannot hold this value."))
    logger.error("database: %s", error, exc_info=error)
    # SQLite calls a statement that is wrong operational, too.
    is_wrong = getattr(getattr(error, "orig", None), "sqlite_errorcode", None) == sqlite3.SQLITE_ERROR
    if isinstance(error, OperationalError | PoolTimeout) and not is_wrong:
        return _unavailable("The database cannot be reached. Please try again.")
    return http_error(exceptions.InternalServerError())


def storage_error(error: storage.StorageError) -> Response:
    """404 for a path without a file, 503 for a storage that fails."""
    if isinstance(error, storage.InvalidPath | storage.NotFound):
        return http_error(exceptions.NotFound())
    logger.error("storage: %s", error, exc_info=error)
    return _unavailable("The files cannot be reached. Please try again.")


def _unavailable(description: str) -> Response:
    return http_error(exceptions.ServiceUnavailable(description, retry_after=10))


def _page(error: exceptions.HTTPException, status: int) -> str:
    if status < 500:
        return render_template("error.html", error=error, status=status)
    # Flask-Login would ask who is logged in, of the database, which may be what failed.
    return current_app.jinja_env.get_template("error.html").render(error=error, status=status, without_user=True)
