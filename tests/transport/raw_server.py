"""gRPC alone: the servers that benchmarks measure against, in the process and on the loop of what is measured."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc.aio

__all__ = ["serve_raw"]


async def _unary(request: bytes, _: object) -> bytes:
    return request


async def _tokens(request: bytes, _: object) -> AsyncIterator[bytes]:
    for _number in range(int(request)):
        yield b"token "


async def _pieces(requests: AsyncIterator[bytes], _: object) -> AsyncIterator[bytes]:
    kept = [piece async for piece in requests]
    for piece in kept:
        yield piece


async def serve_raw() -> str:
    """Serves on the running loop.

    Returns:
        The address of `/raw/Unary`, which sends its request back, `/raw/Tokens`, which sends so many tokens, and
        `/raw/Pieces`, which sends all that it was sent back when it has come.
    """
    server = grpc.aio.server()
    handlers = {
        "Unary": grpc.unary_unary_rpc_method_handler(_unary),
        "Tokens": grpc.unary_stream_rpc_method_handler(_tokens),
        "Pieces": grpc.stream_stream_rpc_method_handler(_pieces),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("raw", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    asyncio.get_running_loop().create_task(server.wait_for_termination())
    return f"127.0.0.1:{port}"
