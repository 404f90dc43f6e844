"""OpenRTB on the wire: columns, JSON and protobuf decoding, codes, macros."""
