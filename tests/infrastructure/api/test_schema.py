"""Every operation of the API keeps to its document, whatever is sent."""

import secrets
from typing import Any

import pytest
import schemathesis
from flask import Flask
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode

from tests.infrastructure.conftest import needs_blog

POSTS = "/api/v1/posts"
# What it finds is found again: the examples are always the same.
sent = settings(
    max_examples=10, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)


@needs_blog
@pytest.mark.parametrize("mode", GenerationMode)
def test_operations_are_what_the_document_says(app: Flask, api: Any, token: str, mode: GenerationMode) -> None:
    tried = []
    for found in schemathesis.openapi.from_wsgi("/api/openapi.json", app).get_all_operations():
        operation: Any = found.ok()  # type: ignore[union-attr]
        tried.append(operation.label)

        @sent
        @given(operation.as_strategy(mode))
        def check(case: Any) -> None:
            if mode is GenerationMode.POSITIVE:
                # Of what is there, so that it is carried out, and only once.
                if "post_id" in case.path_parameters:
                    case.path_parameters["post_id"] = api.post(POSTS, json={"title": "t", "body": "b"}).json["id"]
                for name, value in {"If-Match": "*", "Idempotency-Key": secrets.token_hex()}.items():
                    if name in case.headers:
                        case.headers[name] = value
            case.call_and_validate(headers={"Authorization": f"Bearer {token}"})

        check()
    item = f"{POSTS}/{{post_id}}"
    assert sorted(tried) == [f"DELETE {item}", f"GET {POSTS}", f"GET {item}", f"POST {POSTS}", f"PUT {item}"]
