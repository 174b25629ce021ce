"""Links to files of disks that serve none themselves, and the route behind them."""

import hashlib
import io
import time
from datetime import timedelta
from pathlib import PurePosixPath
from urllib.parse import quote

import svcs
from flask import abort, current_app, has_request_context, request, send_file
from itsdangerous import Signer
from werkzeug.exceptions import RequestedRangeNotSatisfiable
from werkzeug.wrappers import Response

from config import Settings
from storage.disks import Disks
from storage.local import LocalBackend

# What browsers may show; everything else is for saving. HTML, SVG and PDF can hold scripts.
SHOWN = {
    ".avif": "image/avif",
    ".gif": "image/gif",
    ".jpeg": "image/jpeg",
    ".jpg": "image/jpeg",
    ".mp3": "audio/mpeg",
    ".mp4": "video/mp4",
    ".ogg": "audio/ogg",
    ".png": "image/png",
    ".txt": "text/plain",
    ".webm": "video/webm",
    ".webp": "image/webp",
}


def link(disk: str, path: str, expires: timedelta) -> str:
    """A signed link to a file, without scheme and host. It works for the time `expires`, or up to an eighth less."""
    seconds = int(expires.total_seconds())
    # The same address for a while lets browsers keep the file.
    step = max(seconds // 8, 1)
    until = (int(time.time()) + seconds) // step * step
    signature = _signer().get_signature(f"{disk}\n{path}\n{until}").decode()
    root = request.script_root if has_request_context() else ""
    return f"{root}/files/{quote(disk)}/{quote(path)}?expires={until}&signature={signature}"


def send(disk: str, path: str) -> Response:
    """The file that a link leads to, whole or a range of it."""
    until = request.args.get("expires", default=0, type=int)
    if not _signer().verify_signature(f"{disk}\n{path}\n{until}", request.args.get("signature", "")):
        abort(403, "This link is not valid.")
    if until <= time.time():
        abort(403, "This link has expired.")
    storage = svcs.flask.get(Disks).get(disk) or abort(404)
    # Tag first: if the file is replaced in between, the tag is the old one, and the browser asks again.
    entry = storage.stat(path)
    stream = storage.reader(path)
    name = PurePosixPath(path)
    shown = SHOWN.get(name.suffix.lower())
    kind = shown or "application/octet-stream"
    response = send_file(stream, kind, as_attachment=not shown, download_name=name.name, conditional=False)
    response.headers["Content-Security-Policy"] = "default-src 'none'; sandbox"
    # Browsers keep it, and ask each time whether it is still the same: a path may get other content.
    response.cache_control.private = True
    accel = svcs.flask.get(Settings).storage.accel_redirect
    if accel and isinstance(storage.backend, LocalBackend):
        stream.close()
        response.response = ()
        response.headers["X-Accel-Redirect"] = f"{accel.rstrip('/')}/{quote(disk)}/{quote(entry.path)}"
        return response
    response.last_modified = entry.modified
    response.set_etag(entry.etag)
    response.content_length = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    try:
        return response.make_conditional(request, accept_ranges=True, complete_length=response.content_length)
    except RequestedRangeNotSatisfiable:
        stream.close()
        raise


def _signer() -> Signer:
    # The last one signs; links that an older one has signed stay valid.
    keys = [*reversed(current_app.config["SECRET_KEY_FALLBACKS"]), current_app.config["SECRET_KEY"]]
    return Signer(keys, salt="app.files", digest_method=hashlib.sha256)
