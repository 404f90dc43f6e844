"""Between OpenRTB's JSON and its protobuf: for tests, the market and the benchmark, not for the hot path.

Google's generic JSON mapping fails here: JSON's 0/1 flags are `bool` in the messages, numbers come as strings and
strings as numbers, `ext` holds anything. These functions go by the message descriptors, take what fits and drop the
rest.
"""

from __future__ import annotations

import json
import math
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from dsp.pb.com.iabtechlab.openrtb.v2 import openrtb_pb2
from dsp.pb.dsp.v1 import extensions_pb2

_REGS_EXT = openrtb_pb2.BidRequest.Regs.Ext.DESCRIPTOR
_PIPL: Any = extensions_pb2.pipl
_INT32 = range(-(1 << 31), 1 << 31)


def json_to_pb(request: dict[str, Any]) -> openrtb_pb2.BidRequest:
    """A JSON bid request as a message: 0/1 become bool, unknown members and unusable values are dropped.

    Where two of site, app and dooh are given, the last one counts, as everywhere in protobuf.
    """
    message = openrtb_pb2.BidRequest()
    _fill(message, request)
    return message


def json_to_response_pb(response: dict[str, Any]) -> openrtb_pb2.BidResponse:
    """A JSON bid response as a message, by the same rules."""
    message = openrtb_pb2.BidResponse()
    _fill(message, response)
    return message


def request_of(body: bytes) -> dict[str, Any]:
    """A protobuf bid request as a JSON object. Raises what the parser raises."""
    return pb_to_json(openrtb_pb2.BidRequest.FromString(body))


def pb_to_json(message: Message) -> dict[str, Any]:
    """A message as a JSON object: fields that are set only, bool as 0/1."""
    out: dict[str, Any] = {}
    for field, value in message.ListFields():
        if field.is_repeated:
            if field.message_type is not None and field.message_type.GetOptions().map_entry:
                out[field.name] = dict(value)
            else:
                out[field.name] = [_plain(field, v) for v in value]
        else:
            out[field.name] = _plain(field, value)
    return out


def _plain(field: Any, value: Any) -> Any:
    if field.message_type is not None:
        return pb_to_json(value)
    return int(value) if field.type == FieldDescriptor.TYPE_BOOL else value


def _fill(message: Message, source: dict[str, Any]) -> None:
    for key, value in source.items():
        field = message.DESCRIPTOR.fields_by_name.get(key)
        if field is None and key == _PIPL.name and message.DESCRIPTOR is _REGS_EXT:
            if (flag := _scalar(_PIPL, value)) is not None:
                message.Extensions[_PIPL] = flag
        if field is None or value is None:
            continue
        if field.message_type is not None and field.message_type.full_name.startswith("google."):
            continue
        if field.is_repeated:
            _extend(getattr(message, key), field, value if isinstance(value, list) else [value])
        elif field.message_type is not None:
            if isinstance(value, dict):
                child = getattr(message, key)
                child.SetInParent()
                _fill(child, value)
        elif (scalar := _scalar(field, value)) is not None:
            setattr(message, key, scalar)


def _extend(target: Any, field: Any, values: list[Any]) -> None:
    if field.message_type is not None:
        if not field.message_type.GetOptions().map_entry:
            for value in values:
                if isinstance(value, dict):
                    _fill(target.add(), value)
        return
    target.extend(scalar for value in values if (scalar := _scalar(field, value)) is not None)


def _scalar(field: Any, value: Any) -> str | float | int | bool | None:
    """``value`` as the field's type, None if it can't be."""
    if field.type == FieldDescriptor.TYPE_STRING:
        return _text(value, field.name == "request")
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if not isinstance(value, int | float) or (isinstance(value, float) and not math.isfinite(value)):
        return None
    if field.type == FieldDescriptor.TYPE_BOOL:
        return bool(value)
    if field.type == FieldDescriptor.TYPE_DOUBLE:
        return float(value)
    return int(value) if int(value) in _INT32 else None


def _text(value: Any, may_hold_json: bool) -> str | None:
    """A JSON value as protobuf text: strings, numbers as they print, a native request's object as compact JSON."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:  # a lone surrogate
            return None
        return value
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, dict) and may_hold_json:
        return json.dumps(value, separators=(",", ":"))
    return str(value) if isinstance(value, int | float) else None
