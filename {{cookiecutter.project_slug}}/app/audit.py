"""The audit log: what happened to accounts, and what administrators did; by whom, and from which address."""

import logging
import os

import svcs
from flask import current_app, has_request_context, request
from flask_login import current_user
from sqlalchemy.orm import Session

logger = logging.getLogger("app.audit")


def audit(action: str, **what: object) -> None:
    """Note an action, and count it for /metrics.

    What the request has written is committed first: the log tells nothing that is undone afterwards.
    """
    who: dict[str, str | None] = {"user": os.environ.get("SUDO_USER") or os.environ.get("USER") or f"uid {os.getuid()}"}
    if has_request_context():
        svcs.flask.get(Session).commit()
        who = {"user": getattr(current_user, "username", None), "address": request.remote_addr}
    logger.info(action, extra={**who, **what})
    current_app.extensions["audited"].labels(action).inc()
