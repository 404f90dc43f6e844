from dsp.pb.com.iabtechlab.bidstream.mutation.v1 import mutation_pb2 as _mutation_pb2
from google.protobuf import descriptor as _descriptor
from typing import ClassVar as _ClassVar

DESCRIPTOR: _descriptor.FileDescriptor
