"""The API against its own document: schemathesis makes requests from it and checks every answer."""

from __future__ import annotations

from collections.abc import Callable

import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from starlette.testclient import TestClient

from dsp.console.api import OPERATIONS, PREFIX
from dsp.console.openapi import document

EXAMPLES = 6  # for each operation
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


def test_the_document_has_every_operation() -> None:
    paths = document()["paths"]
    assert {(o.method.lower(), PREFIX + o.path) for o in OPERATIONS} == {(m, p) for p, ms in paths.items() for m in ms}


def test_no_answer_is_undocumented(owner: TestClient, sign_in: Callable[..., TestClient]) -> None:
    schema = schemathesis.openapi.from_asgi(PREFIX + "/openapi.json", owner.app)
    headers = dict(owner.headers) | {"cookie": "; ".join(f"{k}={v}" for k, v in owner.cookies.items())}
    asked = 0
    for result in schema.get_all_operations():
        operation = result.ok()

        @given(case=operation.as_strategy())
        @settings(
            max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        def run(case: schemathesis.Case) -> None:
            nonlocal asked
            asked += 1
            case.call_and_validate(headers=headers, checks=CHECKS)

        run()
    assert asked > len(OPERATIONS)
