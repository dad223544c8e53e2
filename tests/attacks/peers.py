"""Peers that follow no rules: a caller that speaks frames by hand, and a host that does so."""

from __future__ import annotations

import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any, Self

import grpc

from tests.attacks.internals import (
    CONVERSE,
    SERVICE,
    BulkFields,
    credit,
    describe_reply,
    encoded,
    frames_of,
    merged,
    message,
    pb,
    told,
    unpacked_reply,
)
from tests.attacks.kit import brief

__all__ = ["FakeHost", "Granted", "RawCaller", "channel"]

OWN_CONNECTION = ("grpc.use_local_subchannel_pool", 1)


def channel(address: str, *options: tuple[str, Any], **kwargs: Any) -> Any:
    """A channel with a connection of its own."""
    return grpc.insecure_channel(address, options=[OWN_CONNECTION, *options], **kwargs)


class RawCaller:
    """A stream to a host on which frames are written by hand.

    Args:
        address: of the host.
        token: what it shows; None to show none.
        reads: whether it reads what the host says.
    """

    def __init__(self, address: str, token: str | None = None, *, reads: bool = True, compresses: bool = False) -> None:
        compression = grpc.Compression.Gzip if compresses else None
        self._channel = channel(address, ("grpc.max_send_message_length", -1), compression=compression)
        self.outbox: queue.Queue[bytes | None] = queue.Queue()
        self._inbox: queue.Queue[pb.Frame | None] = queue.Queue()
        self.ended: str | None = None
        metadata = (("authorization", f"Bearer {token}"),) if token is not None else ()
        self._call = self._channel.stream_stream(CONVERSE)(iter(self.outbox.get, None), metadata=metadata)
        if reads:
            threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        received = 0
        try:
            for data in self._call:
                frames = frames_of(data)
                for frame in frames:
                    self._inbox.put(frame)
                received += len(data) if frames else 0
                self.outbox.put(credit(received, *(frame.run for frame in frames)))
            self.ended = "ended"
        except grpc.RpcError as error:
            self.ended = f"{error.code().name}: {error.details()}"
        self._inbox.put(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.outbox.put(None)
        self._call.cancel()
        self._channel.close()

    def send(self, *frames: pb.Frame) -> None:
        self.outbox.put(message(*frames))

    def send_bytes(self, data: bytes) -> None:
        self.outbox.put(data)

    def written(self, timeout: float = 60.0) -> bool:
        """Wait until all has been handed to gRPC. Returns whether it was."""
        limit = time.monotonic() + timeout
        while self.outbox.qsize() and self.ended is None and time.monotonic() < limit:
            time.sleep(0.02)
        return not self.outbox.qsize()

    def end_of(self, run: int, timeout: float = 60.0) -> str:
        """What the last frame of a run says, or how the stream ended."""
        limit, large = time.monotonic() + timeout, None
        while True:
            try:
                frame = self._inbox.get(timeout=max(0.01, limit - time.monotonic()))
            except queue.Empty:
                return "nothing came"
            if frame is None:
                return str(self.ended)
            if frame.run == run and frame.bulk:
                large = BulkFields(frame)
                continue
            if frame.run == run and large is not None and frame.HasField("chunk") and large.add(frame.chunk.data):
                frame = merged(large)
            if frame.run == run and frame.WhichOneof("body") in ("end", "reset"):
                return told(frame)


class Granted:
    """One run on a fake host: what it may say to its caller, and ask of it."""

    def __init__(self, frame: pb.Frame, say: Callable[[bytes], None], inbox: queue.Queue[pb.Frame | None]) -> None:
        self.run, self.start = frame.run, frame.start
        self._say, self._inbox = say, inbox
        self._requests = 0

    def say(self, **body: Any) -> None:
        """Send a frame."""
        self._say(message(pb.Frame(run=self.run, **body)))

    def say_bytes(self, data: bytes) -> None:
        """Send a message as it is."""
        self._say(data)

    def ask(self, target: str, method: str, *args: Any, **kwargs: Any) -> tuple[bool, Any]:
        """Ask for what the caller lends. Returns whether it was granted, and the value or the error."""
        self._requests += 1
        arguments = encoded((args, kwargs))
        self.say(request=pb.Request(id=self._requests, target=target, method=method, arguments=arguments))
        while (frame := self._inbox.get(timeout=60)) is not None:
            if frame.HasField("reply") and frame.reply.id == self._requests:
                return unpacked_reply(frame)
        return False, "the stream ended"


_CARD = {
    "name": "x",
    "subgraphs": {},
    "channels": {
        "input_channels": "__start__",
        "output_channels": ["text"],
        "stream_channels": None,
        "stream_mode": "updates",
        "interrupt_before_nodes": [],
        "interrupt_after_nodes": [],
    },
}
"""The card of a graph that could be any."""


class FakeHost:
    """A server that answers each start of a run with `behave`, which may be replaced between runs."""

    def __init__(self) -> None:
        self.behave: Callable[[Granted], None] = lambda run: None
        self.card: Any = encoded(_CARD)
        sizes = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        self._server = grpc.server(futures.ThreadPoolExecutor(20), options=sizes)
        converse = grpc.stream_stream_rpc_method_handler(self._converse, bytes, bytes)
        describe = grpc.unary_unary_rpc_method_handler(self._describe, bytes, bytes)
        handlers = {"Converse": converse, "Describe": describe}
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    def stop(self) -> None:
        self._server.stop(0)

    def _converse(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        context.send_initial_metadata((("agentmatrix-wire", "1"),))
        outbox: queue.Queue[bytes | None] = queue.Queue(20)  # what it says is not to fill this process
        inbox: queue.Queue[pb.Frame | None] = queue.Queue()

        def read() -> None:
            try:
                for data in messages:
                    for frame in frames_of(data):
                        inbox.put(frame)
            except grpc.RpcError:
                pass
            finally:
                inbox.put(None)
                outbox.put(None)

        def work() -> None:
            while (frame := inbox.get()) is not None:
                if frame.HasField("start"):
                    try:
                        self.behave(Granted(frame, outbox.put, inbox))
                    except Exception as error:
                        print("fake host:", brief(error), file=sys.stderr)

        for target in (read, work):
            threading.Thread(target=target, daemon=True).start()
        yield from iter(outbox.get, None)

    def _describe(self, data: bytes, context: grpc.ServicerContext) -> bytes:
        if self.card is None:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "no card")
        return describe_reply(self.card)
