"""A model server as people write them: aiohttp.web, JSON parsed and JSON made for each request.

python -m bench.usual_server        prints its port, then serves until its stdin closes
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import time

from aiohttp import web

from bench.server import ANSWER

_numbers = itertools.count(1)


async def chat_completions(request: web.Request) -> web.Response:
    """Answer as OpenAI's wire has it."""
    body = await request.json()
    if body.get("stream") or not body["messages"]:
        raise web.HTTPBadRequest(text="This server answers whole and wants messages.")
    message = {"role": "assistant", "content": ANSWER, "refusal": None, "annotations": []}
    usage = {"prompt_tokens": 12, "completion_tokens": 10, "total_tokens": 22}
    details = {"cached_tokens": 0, "audio_tokens": 0}, {"reasoning_tokens": 0, "audio_tokens": 0}
    return web.json_response(
        {
            "id": f"chatcmpl-{next(_numbers)}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": body["model"],
            "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
            "usage": {**usage, "prompt_tokens_details": details[0], "completion_tokens_details": details[1]},
            "service_tier": "default",
            "system_fingerprint": "fp_bench",
        }
    )


async def main() -> None:
    app = web.Application()
    app.router.add_post("/v1/chat/completions", chat_completions)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(main())
