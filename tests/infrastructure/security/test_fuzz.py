"""Requests that nobody has thought of: always an answer, never an error of the service."""

import json
import re
from urllib.parse import quote_from_bytes

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.infrastructure.security.conftest import Site

METHODS = ["GET", "HEAD", "POST", "POST", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "get", "NONE"]
NAMES = ["before", "after", "expires", "signature", "v", "next", "csrf_token", "username", "email", "password"]
NAMES += ["current", "title", "body", "file", "picture", ""]
HEADERS = ["Accept", "Accept-Encoding", "Accept-Language", "Authorization", "Cache-Control", "Content-Encoding"]
HEADERS += ["Content-Type", "Cookie", "Expect", "Forwarded", "Host", "If-Match", "If-Modified-Since", "If-None-Match"]
HEADERS += ["If-Range", "Origin", "Range", "Referer", "Transfer-Encoding", "Upgrade", "User-Agent", "X-CSRFToken"]
HEADERS += ["X-Forwarded-For", "X-Forwarded-Host", "X-HTTP-Method-Override", "X-Request-ID", "X-Requested-With"]
KINDS = ["application/x-www-form-urlencoded", "multipart/form-data; boundary=b", "application/json", "text/plain", "/"]
NASTY = [b"../" * 5, b"%", b"%00", b"\0", b"\r\n", b"\xff\xfe", "\u202e\ud7ff\U0010ffff".encode(), b"' OR 1=1 --"]
NASTY += [b"<script>", b"{{7*7}}", b"-1", b"9" * 400, b"1e400", b"NaN", b"-0", b"[" * 500, b"=" * 50, b"A" * 3000]

some_bytes = st.sampled_from(NASTY) | st.binary(max_size=40) | st.text(max_size=20).map(str.encode)
# What a server lets through: any letter of Latin-1 that is not one of the signs that end a line.
header_value = some_bytes.map(lambda data: data.translate(None, b"\r\n\0").decode("latin-1"))
pairs = st.lists(st.tuples(st.sampled_from(NAMES), some_bytes), max_size=5)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=3),
    max_leaves=6,
)


def encoded(fields: list[tuple[str, bytes]]) -> bytes:
    return b"&".join(name.encode() + b"=" + quote_from_bytes(value).encode() for name, value in fields)


def multipart(fields: list[tuple[str, bytes]], is_file: bool) -> bytes:
    file = b'; filename="%s"' if is_file else b""
    parts = [
        b'--b\r\nContent-Disposition: form-data; name="%s"' % name.encode()
        + (file % value.translate(None, b'"\r\n') if is_file else b"")
        + b"\r\n\r\n%s\r\n" % value
        for name, value in fields
    ]
    return b"".join(parts) + b"--b--\r\n"


# A type and a body, which mostly belong together.
bodies = st.one_of(
    st.tuples(st.just(KINDS[0]), pairs.map(encoded)),
    st.tuples(st.just(KINDS[1]), st.builds(multipart, pairs, st.booleans())),
    st.tuples(st.just(KINDS[2]), json_values.map(lambda value: json.dumps(value).encode())),
    st.tuples(st.sampled_from(KINDS), some_bytes),
)


@st.composite
def addresses(draw: st.DrawFn, site: Site) -> str:
    """The address of a route, in which something else may stand where ada's things are named."""

    rule = draw(st.sampled_from(site.rules))

    def part(found: re.Match[str]) -> str:
        known = str(site.links.get(rule.endpoint) if found[1] == "token" else site.values[found[1]]).encode()
        return quote_from_bytes(draw(st.just(known) | some_bytes))

    path = re.sub(r"<(?:\w+:)?(\w+)>", part, rule.rule)
    query = draw(st.one_of(st.just(site.query), pairs.map(encoded).map(bytes.decode), some_bytes.map(quote_from_bytes)))
    return f"{path}?{query}"


# What it finds is found again: the examples are always the same.
@settings(derandomize=True, deadline=None, max_examples=350, database=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_no_request_is_an_error_of_the_service(site: Site, data: st.DataObject) -> None:
    who = data.draw(st.sampled_from(["visitor", "ada", "admin"]))
    headers = {"X-CSRFToken": site.tokens[who]} | data.draw(
        st.dictionaries(st.sampled_from(HEADERS), header_value, max_size=3)
    )
    kind, body = data.draw(bodies)
    headers.setdefault("Content-Type", kind)
    response = site.ask(
        who,
        data.draw(addresses(site)),
        data.draw(st.sampled_from(METHODS)),
        data=body,
        headers=headers,
    )
    assert response.status_code < 500
    assert site.missing_headers(response) == set()
    site.restore()
