"""A gRPC server with one method, whose messages are octets: a program of its own, since grpcio does not like its process to be forked.

Prints its port, and serves until its input ends.

Not here: callers (caller.py).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import grpc


def say(messages: Iterator[bytes], _: Any) -> Iterator[bytes]:
    """Each message at once, by a word before it."""
    for message in messages:
        yield b"from the laptop: " + message


if __name__ == "__main__":
    server = grpc.server(futures.ThreadPoolExecutor(int(sys.argv[1])))
    method = grpc.stream_stream_rpc_method_handler(say)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("lab.Words", {"Say": method}),))
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    server.start()
    sys.stdin.read()
    server.stop(None).wait()
