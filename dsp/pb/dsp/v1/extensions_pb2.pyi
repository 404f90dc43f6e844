from dsp.pb.com.iabtechlab.openrtb.v2 import openrtb_pb2 as _openrtb_pb2
from google.protobuf import descriptor as _descriptor
from typing import ClassVar as _ClassVar

DESCRIPTOR: _descriptor.FileDescriptor
PIPL_FIELD_NUMBER: _ClassVar[int]
pipl: _descriptor.FieldDescriptor
