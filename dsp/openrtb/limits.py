"""Bounds of the wire: what a request may be before it is refused or cut."""

MAX_BATCH = 128  # requests one `decide` takes
MAX_BODY_BYTES = 1 << 20  # larger: 413 / RESOURCE_EXHAUSTED; also the bound of a decompressed gzip body
MAX_BATCH_BYTES = 2 << 20  # a batch is cut before it exceeds this (one body always fits)
MAX_DEPTH = 48  # nesting of JSON objects/arrays and protobuf messages
MAX_IMPS = 24  # further imps of a request are legal and ignored
MAX_DEALS_PER_IMP = 64
MAX_SIZES_PER_IMP = 64
MAX_EIDS = 16
MAX_ASSETS = 32
MAX_LIST_NUMBERS = 64  # values of a list of numbers (rqddurs, gpp_sid) and of durfloors; further ones are ignored
