"""A load generator for both fronts: thousands of distinct bodies, fixed arrival rates or saturation.

Why not `h2load` or `wrk`: the first sends one body per run, the second is closed-loop HTTP/1.1 only, so neither can
hold an arrival rate with a realistic mix. They remain the cross-check (`bench.generator`).
"""

from bench.load.grpcload import GrpcLoad
from bench.load.httpload import HttpLoad
from bench.load.request import METHOD, Request, to_one_path
from bench.load.run import LoadError
from bench.load.window import Window

__all__ = ["METHOD", "GrpcLoad", "HttpLoad", "LoadError", "Request", "Window", "to_one_path"]
