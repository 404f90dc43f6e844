"""The OpenAPI 3.1 document, made from `api.OPERATIONS` and their types."""

from __future__ import annotations

from typing import Any

import msgspec

from dsp.console.api import OPERATIONS, PREFIX
from dsp.console.errors import Envelope
from dsp.console.operation import Operation

_ALWAYS = (400, 401, 403)
_REF = "#/components/schemas/{name}"
_WHY = {
    400: "Not understood", 401: "Not signed in", 403: "Not allowed", 404: "Not found", 409: "In conflict",
    412: "Stale ETag", 413: "Too large", 422: "Wrong fields", 428: "If-Match is missing", 429: "Too many",
    503: "Not there yet, or busy",
}  # fmt: skip


def document() -> dict[str, Any]:
    """The document, JSON types only."""
    kinds: list[Any] = [Envelope]
    for o in OPERATIONS:
        kinds += [kind for kind in (o.answer, o.query, o.body) if kind is not None]
    kinds = list(dict.fromkeys(kinds))
    schemas, components = msgspec.json.schema_components(kinds, ref_template=_REF)
    schema = dict(zip(kinds, schemas, strict=True))
    paths: dict[str, Any] = {}
    for o in OPERATIONS:
        paths.setdefault(PREFIX + o.path, {})[o.method.lower()] = _operation(o, schema, components)
    return {
        "openapi": "3.1.0",
        "info": {"title": "dsp console", "version": "1.0.0", "description": "Amounts are decimals, times are local."},
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "description": "An API key"}},
        },
        "security": [{"key": []}],
    }


def _operation(o: Operation, schema: dict[Any, Any], components: dict[str, Any]) -> dict[str, Any]:
    parameters: list[dict[str, Any]] = []
    if "{id}" in o.path:
        number = {"type": "integer", "minimum": 1, "maximum": 2**53}
        parameters.append({"name": "id", "in": "path", "required": True, "schema": number})
    if "{key}" in o.path:
        text = {"type": "string", "minLength": 1, "maxLength": 200}
        parameters.append({"name": "key", "in": "path", "required": True, "schema": text})
    for name, value in components[o.query.__name__].get("properties", {}).items():
        parameters.append({"name": name, "in": "query", "required": False, "schema": value})
    if o.match or o.tagged:
        tag = {"type": "string"}
        parameters.append({"name": "if-match", "in": "header", "required": o.match, "schema": tag})
    if o.method == "POST":
        key = {"type": "string", "maxLength": 200}
        parameters.append({"name": "idempotency-key", "in": "header", "required": False, "schema": key})
    good = {"description": "Done", "content": {o.media: {"schema": schema[o.answer]}}}
    envelope = {"application/json": {"schema": schema[Envelope]}}
    errors = {
        *_ALWAYS,
        *o.errors,
        *((413, 422) if o.body is not None else ()),
        *((409, 422) if o.method == "POST" else ()),
    }
    found: dict[str, Any] = {
        "summary": o.summary,
        "operationId": f"{o.method.lower()} {o.path}".replace("/", " ").strip().replace(" ", "_"),
        "parameters": parameters,
        "responses": {
            str(o.status): good,
            **{str(s): {"description": _WHY[s], "content": envelope} for s in sorted(errors)},
        },
    }
    if o.body is not None:
        found["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema[o.body]}}}
    return found
