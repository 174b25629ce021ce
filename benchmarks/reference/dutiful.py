"""The same pages with the service's duties: a JSON log line, a request id, security headers and metrics of requests."""

import json
import sys
import time
import uuid
from datetime import UTC, datetime

from bare import app
from flask import Response, g, request
from prometheus_client import Counter, Histogram

POLICY = "default-src 'none'; style-src 'self'; img-src 'self'; script-src 'self'; form-action 'self'; base-uri 'none'"
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "same-origin",
    "Strict-Transport-Security": "max-age=31536000",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

requests = Counter("http_requests", "Requests answered.", ("method", "route", "status"))
seconds = Histogram("http_request_duration_seconds", "Time to the response.", ("route",))


@app.before_request
def begin() -> None:
    g.started, g.request_id = time.perf_counter(), uuid.uuid4().hex


@app.after_request
def end(response: Response) -> Response:
    for name, value in HEADERS.items():
        response.headers[name] = value
    response.headers["X-Request-ID"] = g.request_id
    took, route = time.perf_counter() - g.started, request.url_rule.rule if request.url_rule else ""
    requests.labels(request.method, route, response.status_code).inc()
    seconds.labels(route).observe(took)
    line = {
        "timestamp": datetime.now(UTC).isoformat(),
        "event": "request",
        "method": request.method,
        "route": route,
        "status": response.status_code,
        "milliseconds": round(took * 1000, 1),
        "request_id": g.request_id,
    }
    sys.stderr.write(json.dumps(line) + "\n")
    return response
