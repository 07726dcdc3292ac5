"""A model server that costs almost nothing: canned answers over plain asyncio, so that what is measured is the client.

python -m bench.server        prints its port, then serves until its stdin closes
"""

from __future__ import annotations

import asyncio
import json
import sys

TOKENS = 400
ANSWER = "The quick brown fox jumps over the lazy dog."
_WHOLE = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": "bench",
        "created": 1,
        "choices": [{"index": 0, "message": {"role": "assistant", "content": ANSWER}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 12, "completion_tokens": 10, "total_tokens": 22},
    }
).encode()
WHOLE = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(_WHOLE) + _WHOLE


def _event(delta: dict[str, str], finish: str | None = None, **more: object) -> bytes:
    choices = [{"index": 0, "delta": delta, "finish_reason": finish}] if not more else []
    body = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "bench", "choices": choices, **more}
    data = b"data: " + json.dumps(body).encode() + b"\n\n"
    return b"%x\r\n%s\r\n" % (len(data), data)


def stream_parts(tokens: int) -> list[bytes]:
    """Return the chunks of a stream of so many tokens."""
    usage = {"prompt_tokens": 12, "completion_tokens": tokens, "total_tokens": 12 + tokens}
    done = b"data: [DONE]\n\n"
    return [
        *(_event({"content": f"word{i % 10} "}) for i in range(tokens)),
        _event({}, "stop"),
        _event({}, usage=usage),
        b"%x\r\n%s\r\n0\r\n\r\n" % (len(done), done),
    ]


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
PARTS = stream_parts(TOKENS)


class Connection(asyncio.Protocol):
    """Reads requests and answers each with the canned bytes; a stream goes out token by token, each in a write of its own."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.buffer = b""

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = self.buffer[:end].lower()
            at = head.find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self.buffer) < end + 4 + length:
                return
            body = self.buffer[end + 4 : end + 4 + length]
            self.buffer = self.buffer[end + 4 + length :]
            if b'"stream":true' in body or b'"stream": true' in body:
                asyncio.get_running_loop().create_task(self.stream())
            else:
                self.transport.write(WHOLE)

    async def stream(self) -> None:
        self.transport.write(HEAD)
        for part in PARTS:
            self.transport.write(part)
            await asyncio.sleep(0)


async def main() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Connection, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


if __name__ == "__main__":
    asyncio.run(main())
