"""The protobuf code is what `make proto` makes, and its messages are OpenRTB 2.6's to the last field number."""

import csv
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from dsp.pb.com.iabtechlab.openrtb.v2 import openrtb_pb2
from dsp.pb.dsp.v1 import bidder_pb2

REPO = Path(__file__).parents[2]
SHARED = REPO.parent / "shared" / "openrtb"
PACKAGE = "com.iabtechlab.openrtb.v2."
TYPES = {
    FieldDescriptor.TYPE_STRING: "string",
    FieldDescriptor.TYPE_INT32: "int32",
    FieldDescriptor.TYPE_BOOL: "bool",
    FieldDescriptor.TYPE_DOUBLE: "double",
}


def load_generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("proto_generate", REPO / "proto" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_generated_code_is_what_make_proto_makes() -> None:
    generate = load_generator()
    made = generate.generate()
    kept = {
        str(p.relative_to(generate.TARGET)): p.read_text()
        for p in generate.TARGET.rglob("*.py*")
        if "__pycache__" not in p.parts
    }
    assert kept.keys() == made.keys()
    assert [name for name in made if made[name] != kept[name]] == []


def messages() -> dict[str, Descriptor]:
    found: dict[str, Descriptor] = {}

    def walk(message: Descriptor) -> None:
        found[message.full_name.removeprefix(PACKAGE)] = message
        for nested in message.nested_types:
            walk(nested)

    for message in openrtb_pb2.DESCRIPTOR.message_types_by_name.values():
        walk(message)
    return found


def type_name(field: FieldDescriptor) -> str:
    if field.message_type is None:
        return TYPES[field.type]
    name = field.message_type.full_name
    return name.removeprefix(PACKAGE) if name.startswith(PACKAGE) else "." + name


def official() -> list[dict[str, str]]:
    path = SHARED / "fields-2.6.csv"
    if not path.exists():
        pytest.skip(f"{path} is missing: the official field table is needed to compare with")
    with path.open() as file:
        # Struct, Value and ListValue are google.protobuf's own, imported
        return [r for r in csv.DictReader(file) if not r["message"].startswith(("Struct", "Value", "ListValue"))]


def test_every_field_is_the_official_one() -> None:
    expected = {
        (r["message"], int(r["number"]), r["name"], r["type"], r["label"], r["oneof"])
        for r in official()
        if r["number"]
    }
    ours = {
        (
            name,
            field.number,
            field.name,
            type_name(field),
            "repeated" if field.is_repeated else "optional",
            field.containing_oneof.name if field.containing_oneof else "",
        )
        for name, message in messages().items()
        for field in message.fields
    }
    assert ours == expected


def test_extension_ranges_are_the_official_ones() -> None:
    from google.protobuf.descriptor_pb2 import DescriptorProto

    expected = {(r["message"], r["extensions"]) for r in official() if r["extensions"]}
    ours = set()
    for name, message in messages().items():
        proto = DescriptorProto()
        message.CopyToProto(proto)
        ours |= {(name, f"{r.start}-{r.end - 1}") for r in proto.extension_range}
    assert ours == expected


def test_every_enum_is_the_official_one() -> None:
    path = SHARED / "enums.csv"
    if not path.exists():
        pytest.skip(f"{path} is missing: the official enum table is needed to compare with")
    with path.open() as file:
        expected = {(r["enum"], int(r["number"]), r["name"]) for r in csv.DictReader(file)}
    enums = list(openrtb_pb2.DESCRIPTOR.enum_types_by_name.values())
    for message in messages().values():
        enums += message.enum_types
    ours = {(e.full_name.removeprefix(PACKAGE), v.number, v.name) for e in enums for v in e.values}
    assert ours == expected


def test_service_takes_and_gives_openrtb_unmodified() -> None:
    bid = bidder_pb2.DESCRIPTOR.services_by_name["Bidder"].methods_by_name["Bid"]
    assert bid.input_type is openrtb_pb2.BidRequest.DESCRIPTOR
    assert bid.output_type is openrtb_pb2.BidResponse.DESCRIPTOR
    assert bid.containing_service.full_name == "dsp.v1.Bidder"
