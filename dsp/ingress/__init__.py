"""The bidder's fronts: HTTP, native gRPC, grpcio."""
