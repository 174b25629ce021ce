"""The OpenAPI document, made of what each operation says of itself."""

import json
from collections.abc import Iterator
from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType, field
from spectree import Response, SecurityScheme, SpecTree
from spectree.model_adapter.msgspec_adapter import MsgspecModelAdapter
from spectree.models import SecureType, SecuritySchemeData
from spectree.plugins.flask_plugin import FlaskPlugin
from spectree.utils import get_model_key


class Problem(Struct):
    """What every error is answered with, RFC 9457."""

    type: str
    title: str
    status: int
    detail: str


class OnlyOnce(Struct):
    key: Annotated[str, Meta(min_length=1, max_length=100)] | UnsetType = field(name="Idempotency-Key", default=UNSET)


class Unchanged(Struct):
    etag: str = field(name="If-Match")


HEADERS = {"POST": OnlyOnce, "PUT": Unchanged, "PATCH": Unchanged, "DELETE": Unchanged}


class Operations(FlaskPlugin):
    """Only describes them: spectree's own checks would take broken JSON, or a form, for an empty object."""

    def parse_func(self, route: Any) -> Iterator[tuple[str, Any]]:
        for method, view in super().parse_func(route):
            if says := getattr(view, "operation", None):
                described = self.spectree.validate(
                    query=says["query"],
                    json=says["body"],
                    headers=HEADERS.get(method),
                    resp=Response(**{f"HTTP_{says['status']}": says["answer"]}),
                    operation_id=route.endpoint,
                    skip_validation=True,
                )
                yield method, described(view)


def openapi(title: str) -> Any:
    bearer = SecuritySchemeData(type=SecureType.HTTP, scheme="bearer")
    # Its types are narrower than those that it is asked for.
    adapter: Any = MsgspecModelAdapter()
    document = SpecTree(
        backend=Operations,
        title=title,
        version="1",
        mode="strict",
        annotations=False,
        model_adapter=adapter,
        naming_strategy=lambda model: get_model_key(model).partition(".")[0],
        nested_naming_strategy=lambda _parent, child: child,
        validation_error_model=Problem,
        security_schemes=[SecurityScheme(name="token", data=bearer)],
        security={"token": []},
    ).spec
    for methods in document["paths"].values():
        for described in methods.values():
            # All errors look the same.
            schema = described["responses"].pop("422")["content"]["application/json"]
            problem = {"description": "An error", "content": {"application/problem+json": schema}}
            described["responses"]["default"] = problem
    # Structs of parameters are written out where they are used, and nothing refers to them.
    text, schemas = json.dumps(document), document["components"]["schemas"]
    document["components"]["schemas"] = {name: schemas[name] for name in schemas if f'/{name}"' in text}
    return document
