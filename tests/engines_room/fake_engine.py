"""A model server that behaves as its first argument says, for tests: it stands where a real engine would.

slow SECONDS | oom | oom_far_above | oom_with_children | silent | hangs | no_list | hangs_later | healthy_only | wedges_later
| stubborn | dies_later | loud | no_model
The port is the word behind --port; the name of the model the word behind --served-model-name.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

STUBBORN = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.signal(signal.SIGINT, signal.SIG_IGN)
os.setsid()
if os.fork():
    if sys.argv[1] == "orphan":
        os._exit(0)  # the child is an orphan, in a session and a group of its own
    os.wait()
time.sleep(600)
"""
mode = sys.argv[1]
words = sys.argv
port = int(words[words.index("--port") + 1])
name = words[words.index("--served-model-name") + 1]
completions = 0


class Handler(BaseHTTPRequestHandler):
    """Answers what readiness and status ask for."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        """Say nothing."""

    def give(self, body: object, status: int = 200) -> None:
        """Send JSON."""
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self) -> None:
        """Health, models, metrics."""
        if mode == "silent" or (mode == "hangs" and self.path != "/health") or (mode == "hangs_later" and completions):
            time.sleep(600)
        if mode == "no_list" and self.path == "/v1/models":
            self.give({"error": {"message": "what models?"}}, 404)
        elif self.path == "/v1/models":
            self.give({"data": [{"id": "another" if mode == "no_model" else name}]})
        elif self.path == "/metrics":
            self.give(f'vllm:num_requests_running{{engine="0"}} 1\nvllm:generation_tokens_total{{engine="0"}} {completions}\n')
        else:
            self.give({})

    def do_POST(self) -> None:
        """One token, or nothing for a long time."""
        global completions  # noqa: PLW0603 - one server a process
        self.rfile.read(int(self.headers["Content-Length"]))
        key = os.environ.get("FAKE_KEY")
        if key and self.headers.get("Authorization") != f"Bearer {key}":
            self.give({"error": {"message": "no key"}}, 401)
            return
        if mode == "healthy_only" or (mode in {"wedges_later", "hangs_later"} and completions):
            time.sleep(600)
        completions += 1
        self.give({"choices": [{"message": {"content": "x"}}]})
        if mode == "dies_later":
            print("RuntimeError: the device is gone", flush=True)
            threading.Timer(0.2, os._exit, (3,)).start()


OUT_OF_MEMORY = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has 1.2 GiB free."
if mode in {"stubborn", "oom_with_children"}:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for kind in ("child", "child", "orphan"):
        subprocess.Popen([sys.executable, "-S", "-c", STUBBORN, kind])
    time.sleep(0.3)  # the children are as they are
if mode in {"oom", "oom_with_children"}:
    print("Loading weights ...", flush=True)
    time.sleep(float(os.environ.get("FAKE_WAIT_S", "0")))
    print(OUT_OF_MEMORY, file=sys.stderr)
    if "FAKE_NOTE" in os.environ:
        Path(os.environ["FAKE_NOTE"]).write_text(str(time.monotonic()))
    sys.stderr.flush()
    os._exit(1)
if mode == "oom_far_above":
    # As vLLM does it: each of its processes writes a traceback, and the last says only that there is one above.
    for process in ("Worker", "EngineCore", "APIServer"):
        prefix = "" if process == "APIServer" else f"({process} pid=17) ERROR 11-21 14:32:05 [core.py:1510] "
        print(f"(APIServer pid=9) INFO 11-21 14:32:05 [x.py:1] config: trust_remote_code=False, '{process}'")
        for depth in range(60):
            print(f'{prefix}  File "/opt/vllm/{process}_{depth}.py", line {depth}, in run')
        print(f"{prefix}    raise RuntimeError(")
        if process == "APIServer":
            print("RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}")
        else:
            print(prefix + OUT_OF_MEMORY)
    sys.exit(1)
if mode == "loud":
    print(f"my key is {os.environ.get('FAKE_KEY')}", flush=True)
if mode == "slow":
    for step in range(3):
        print(f"Loading shard {step + 1}/3", flush=True)
        time.sleep(float(os.environ["FAKE_WAIT_S"]) / 3)
try:
    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
except OSError as error:
    print(f"ERROR: [Errno {error.errno}] error while attempting to bind: address already in use", flush=True)
    sys.exit(1)
server.serve_forever()
