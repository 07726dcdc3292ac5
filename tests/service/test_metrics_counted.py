"""The numbers of /metrics: bounded, whole whoever counts and reads, and safe from what a provider says."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from nbllm import Client, ask, flow
from nbllm.core.messages import Ending, Usage
from nbllm.service import create_app
from nbllm.service.configuration import ServiceSettings
from nbllm.service.metrics import Metrics
from nbllm.testing import FakeProvider
from tests.service.raw import ask as ask_raw
from tests.service.raw import post
from tests.service.running import running


@flow
def greet(name: str) -> str:
    """Greet somebody."""
    return ask(f"Greet {name}.").text


class CountsBackwards(FakeProvider):
    """Reports less than no tokens."""

    async def send(self, wire: Any, progress: Any) -> Ending:
        return replace(await super().send(wire, progress), usage=Usage(input_tokens=-5, output_tokens=-5))


def test_labels_are_bounded() -> None:
    """Whatever routes, methods and rungs are named, the number of series stays small."""
    metrics = Metrics({"sim/small"})
    for number in range(3000):
        metrics.request(f"/r{number}", f"VERB{number}", 200, 0.1)
    assert metrics.text().count(b"nbllm_requests_total{") <= 502


def test_every_request_is_counted_by_whatever_thread_and_whenever_it_is_read() -> None:
    """What waits to be counted is in the numbers that are read, once, those of several threads too."""
    metrics = Metrics({"sim/small"})

    def requests() -> None:
        for _ in range(1001):
            metrics.request("/v1/models", "GET", 200, 0.1)

    threads = [threading.Thread(target=requests) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for _ in range(2):
        page = metrics.text()
        assert b'nbllm_requests_total{method="GET",route="/v1/models",status="200"} 4004.0' in page
        assert b'nbllm_request_seconds_count{route="/v1/models"} 4004.0' in page


def test_a_provider_that_counts_backwards_spoils_no_numbers(tmp_path: Path) -> None:
    """Calls of a user's own provider with negative counts are counted, by our own count, and so is all that is read with them."""
    with (
        Client(home=tmp_path / "home", providers={"simulated": CountsBackwards()}, ladder=["sim/small"]) as client,
        running(create_app([greet], ServiceSettings(), client=client)) as app,
    ):
        assert post(app, "/flows/greet", b'{"name": "Ann"}').status == 200
        text = ask_raw(app, "/metrics", headers=app.headers).body.decode()
    assert 'nbllm_requests_total{method="POST",route="/flows/greet",status="200"} 1.0' in text
    assert re.search(r'nbllm_tokens_total\{direction="output",rung="sim/small"\} [1-9]', text)
