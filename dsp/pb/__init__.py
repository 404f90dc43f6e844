"""Generated protobuf code, nothing else; ``make proto`` remakes it from ``proto/``.

OpenRTB: ``from dsp.pb.com.iabtechlab.openrtb.v2 import openrtb_pb2``; our service:
``from dsp.pb.dsp.v1 import bidder_pb2, bidder_pb2_grpc``; RTA: ``from dsp.pb.tencent.ad.rta import rta_pb2``;
ARTF: ``from dsp.pb.com.iabtechlab.bidstream.mutation.v1 import mutation_pb2``.
"""
