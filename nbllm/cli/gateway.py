"""`nbllm gateway`: one client's cache, ledger and budgets for every SDK that takes a base_url."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from typing import Any

from nbllm.client import Client
from nbllm.service.gateway import start_gateway


def gateway(given: argparse.Namespace) -> int:
    """Open the gateway and wait until somebody ends it."""
    ended = threading.Event()
    with Client() as client, start_gateway(client, port=given.port) as opened:
        # The key is shown once, to who opened it: what is redacted everywhere else is meant for them.
        print(f"OPENAI_BASE_URL={opened.base_url}")
        print(f"OPENAI_API_KEY={opened.key}")
        sys.stdout.flush()
        print("nbllm: the gateway is open to programs on this machine that have the key; Ctrl-C closes it.", file=sys.stderr)
        before: Any = signal.signal(signal.SIGTERM, lambda *_: ended.set())
        try:
            while not ended.wait(0.5):
                pass
        finally:
            signal.signal(signal.SIGTERM, before)
    return 0
