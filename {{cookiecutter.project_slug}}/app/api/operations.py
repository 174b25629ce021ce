"""What features make their operations of: who asks, what was sent, and what is answered."""

import functools
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import msgspec
import svcs
from flask import Blueprint, Response, abort, g, request
from flask_login import current_user
from sqlalchemy import select
from sqlalchemy.orm import Session
from werkzeug.datastructures import WWWAuthenticate
from werkzeug.exceptions import PreconditionFailed, PreconditionRequired, Unauthorized, UnsupportedMediaType
from werkzeug.http import generate_etag

from app import logs
from app.accounts import User
from app.api.models import Answer, Token, hash_of
from app.audit import audit
from app.extensions import csrf, login_manager
from app.paging import Page
from app.services import SAFE_METHODS
from database import utc_now
from database.base import insert_new


class Paging(msgspec.Struct, forbid_unknown_fields=True):
    """Which page of a list is wanted, as its `Link` header says: the rows before or after that one."""

    before: int | msgspec.UnsetType = msgspec.UNSET
    after: int | msgspec.UnsetType = msgspec.UNSET


def api_blueprint(name: str, module: str) -> Blueprint:
    """For a feature's operations, at `/api/v1/<name>`."""
    blueprint = Blueprint(f"api_{name}", module, url_prefix=f"/api/v1/{name}")
    blueprint.before_request(_authenticate)
    # A token needs no other; for a session, `_authenticate` asks for one.
    return csrf.exempt(blueprint)  # type: ignore[no-any-return]


def operation(
    *, answer: Any = None, status: int = 200, query: Any = None, body: Any = None
) -> Callable[[Callable[..., Any]], Callable[..., Response]]:
    """Describe an operation, and check what is sent against that.

    A POST with an `Idempotency-Key` is carried out once, and answered alike for a day; so its view must not commit.

    Args:
        answer: the type of what the view returns, on its own or with a dict of headers; None for nothing.
        status: the status of a success.
        query: a struct of what the address may have behind `?`, from where the view reads it.
        body: a struct of the JSON that is sent; the view gets one as `body`.
    """

    def decorate(view: Callable[..., Any]) -> Callable[..., Response]:
        @functools.wraps(view)
        def operate(**arguments: Any) -> Response:
            if body and not request.is_json:
                raise UnsupportedMediaType("Send JSON, with Content-Type: application/json.")
            try:
                if query:
                    msgspec.convert(request.args.to_dict(), query, strict=False)
                if body:
                    arguments["body"] = msgspec.json.decode(request.get_data(), type=body)
            except msgspec.ValidationError as error:
                abort(422, str(error))
            except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
                abort(400, f"This JSON cannot be read: {error}")
            return _once(lambda: _respond(view(**arguments), status))

        operate.operation = {"answer": answer, "status": status, "query": query, "body": body}  # type: ignore[attr-defined]
        return operate

    return decorate


def require_match(current: msgspec.Struct) -> None:
    """Refuse to change what the client has not seen: `If-Match` has to be the `ETag` of `current`, a locked row."""
    if not request.if_match:
        raise PreconditionRequired("Send If-Match, with the ETag of what you want to change.")
    if not request.if_match.contains(generate_etag(msgspec.json.encode(current))):
        raise PreconditionFailed("It has changed since you read it. Read it again.")


def page_links(page: Page) -> dict[str, str]:
    """The header with the addresses of the next and previous page of a list, RFC 8288."""
    links = [f'<{request.base_url}?after={page.rows[0].id}>; rel="prev"'] if page.has_newer else []
    links += [f'<{request.base_url}?before={page.rows[-1].id}>; rel="next"'] if page.has_older else []
    return {"Link": ", ".join(links)} if links else {}


def _authenticate() -> None:
    """The user of this request is the owner of its token; without one, whoever is logged in."""
    if "Authorization" not in request.headers and current_user.is_authenticated:
        csrf.protect()
        return
    g._login_user, given, found = login_manager.anonymous_user(), request.authorization, None
    if given and given.type == "bearer" and given.token:
        query = select(Token, User).join(User).where(Token.hash == hash_of(given.token), Token.ends > utc_now())
        found = svcs.flask.get(Session).execute(query).one_or_none()
    if found is None:
        if given:
            audit("token.refused")
        reason = "This token is unknown, or has ended." if given else "Send Authorization: Bearer, with a token."
        raise Unauthorized(reason, www_authenticate=WWWAuthenticate("bearer"))
    token, g._login_user = found
    logs.context.set({**logs.context.get(), "via": f"token {token.id}"})
    if request.method not in SAFE_METHODS and token.scope != "write":
        abort(403, "This token only reads.")


def _respond(result: Any, status: int) -> Response:
    value, headers = result if isinstance(result, tuple) else (result, {})
    response = Response(status=status, headers=headers, mimetype="application/json")
    if value is not None:
        response.data = msgspec.json.encode(value)
        response.add_etag()
    response.make_conditional(request)
    return response


def _once(respond: Callable[[], Response]) -> Response:
    """Answer, or give the answer again that a POST with the same `Idempotency-Key` has got."""
    key = request.headers.get("Idempotency-Key")
    if request.method != "POST" or key is None:
        return respond()
    if not 1 <= len(key) <= 100:
        abort(400, "An Idempotency-Key has 1 to 100 characters.")
    database, owner_id = svcs.flask.get(Session), current_user.id
    digest = sha256(request.full_path.encode() + request.get_data()).hexdigest()
    answer = database.get(Answer, (owner_id, key))
    if answer is None:
        response = respond()
        row = {"owner_id": owner_id, "key": key, "digest": digest, "created": utc_now()}
        row |= {"status": response.status_code, "headers": dict(response.headers), "body": response.get_data(True)}
        if insert_new(database, Answer, **row):
            return response
        # Another request with this key was carried out meanwhile: what this one did is undone.
        database.rollback()
        answer = database.get_one(Answer, (owner_id, key))
    if answer.digest != digest:
        abort(422, "This Idempotency-Key was sent with another request.")
    return Response(answer.body, answer.status, answer.headers)
