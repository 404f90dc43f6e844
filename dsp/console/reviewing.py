"""Operations of the REST API about a second person's approval. A program may ask; people decide, signed in."""

from __future__ import annotations

from dsp.console import models, review
from dsp.console.operation import Call, Operation, Reply, given


def _waiting(call: Call) -> Reply:
    found = review.waiting(call.services.catalog, call.by)
    return Reply(
        models.ReviewList(
            [models.Review(r.id, r.campaign_id, r.campaign, r.changes, r.asked_by, r.asked_s, r.mine) for r in found]
        )
    )


def _ask(call: Call) -> Reply:
    return Reply(models.Made(review.ask(call.services.catalog, call.by, call.ref, given(call.body))), 201)


def _approve(call: Call) -> Reply:
    return Reply(models.Made(review.decide(call.services.catalog, call.by, call.ref, True)))


def _return(call: Call) -> Reply:
    return Reply(models.Made(review.decide(call.services.catalog, call.by, call.ref, False)))


OPERATIONS = (
    Operation("GET", "/reviews", "Changes that wait for a second person", _waiting, models.ReviewList),
    Operation("POST", "/campaigns/{id}/review", "Ask a second person to approve a change, which is then made as it was "
              "asked for", _ask, models.Made, body=models.CHANGE["campaign"], status=201, errors=(404, 422)),
    Operation("POST", "/reviews/{id}/approve", "Make the change that waits; the campaign's id. For signed-in people "
              "alone", _approve, models.Made, errors=(404, 409, 412, 422), needs="read"),
    Operation("POST", "/reviews/{id}/return", "Send it back, nothing changed; the campaign's id. For signed-in people "
              "alone", _return, models.Made, errors=(404, 409), needs="read"),
)  # fmt: skip
