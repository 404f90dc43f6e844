"""Generated protobuf code, nothing else (make proto)."""
