"""An export's queries, asked of a real Prometheus that scrapes the real service, where it is installed."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from nbllm.engines.supervised import free_port
from nbllm.service import create_app
from tests.export.exporting import exported
from tests.export.test_deploy import expressions
from tests.service.running import running

PROMETHEUS, PROMTOOL = shutil.which("prometheus"), shutil.which("promtool")
pytestmark = pytest.mark.skipif(PROMETHEUS is None or PROMTOOL is None, reason="Prometheus is not installed")
SCRAPED_S = 60.0
QUIET = ("nbllm_jobs", "nbllm_refused", 'nbllm_breaker_state{job="support-app"}) == 2', "<= 0", "> 0", "up{")
"""What there is nothing of in a service that is well and has no jobs."""


@dataclass(frozen=True)
class Watched:
    """The export and the Prometheus that watches its service."""

    app: Path
    prometheus: httpx.Client

    def ask(self, query: str) -> list[dict[str, Any]]:
        """The series of a query now; it must be one that Prometheus understands."""
        answer = self.prometheus.get("/api/v1/query", params={"query": query.replace("$__rate_interval", "1m")})
        found = answer.json()
        assert found["status"] == "success", f"{query}: {found}"
        assert not found.get("warnings"), f"{query}: {found}"
        series: list[dict[str, Any]] = found["data"]["result"]
        return series


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """A service that was asked a few times, scraped by the export's own configuration; only places and the pace are the test's."""
    folder = tmp_path_factory.mktemp("watched")
    app = exported(folder / "support_app", proved=False).out
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NBLLM_SIM_SPEED", "0")
        with running(create_app(settings=app / "settings.toml")) as service:
            config = yaml.safe_load((app / "monitoring/prometheus.yml").read_text(encoding="utf-8"))
            config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
            config["rule_files"] = [str(app / "monitoring/alerts.yml")]
            (folder / "key").write_text(service.key, encoding="utf-8")
            config["scrape_configs"][0]["authorization"]["credentials_file"] = str(folder / "key")
            config["scrape_configs"][0]["static_configs"] = [{"targets": [f"127.0.0.1:{service.port}"]}]
            (folder / "prometheus.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
            with _prometheus(folder) as prometheus:
                found = Watched(app, prometheus)
                # What grows between two looks is an increase: two looks before, two after.
                _until(lambda: _looks(found) >= 2)
                for number in range(20):
                    body = {"model": "sim/small", "messages": [{"role": "user", "content": f"Hello {number % 15}"}]}
                    stream = {"stream": True} if number % 2 else {}
                    answer = httpx.post(f"{service.url}/v1/chat/completions", json=body | stream, headers=service.headers)
                    assert answer.status_code == 200
                done = _looks(found)
                _until(lambda: _looks(found) >= done + 2)
                yield found


class _prometheus:  # noqa: N801 - a context manager, used as a function
    def __init__(self, folder: Path) -> None:
        where = f"127.0.0.1:{free_port()}"
        self._log = (folder / "prometheus.log").open("w")
        words = (f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}")
        self._process = subprocess.Popen(
            [str(PROMETHEUS), *words, f"--web.listen-address={where}"], stdout=self._log, stderr=self._log
        )
        self._client = httpx.Client(base_url=f"http://{where}", timeout=30)

    def __enter__(self) -> httpx.Client:
        _until(self._is_ready)
        return self._client

    def __exit__(self, *_: object) -> None:
        self._client.close()
        self._process.terminate()
        self._process.wait(30)
        self._log.close()

    def _is_ready(self) -> bool:
        try:
            return self._client.get("/-/ready").status_code == 200
        except httpx.TransportError:
            return False


def _looks(watched: Watched) -> int:
    """How often the service was scraped."""
    return sum(int(one["value"][1]) for one in watched.ask("count_over_time(up[10m])"))


def _until(true: Any) -> None:
    end_s = time.monotonic() + SCRAPED_S
    while not true():
        assert time.monotonic() < end_s
        time.sleep(0.1)


def test_the_rules_are_prometheus_own(watched: Watched) -> None:
    """Its own checker has nothing to say about the alerts, and it has loaded them all without an error."""
    done = subprocess.run(
        [str(PROMTOOL), "check", "rules", str(watched.app / "monitoring/alerts.yml")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    groups = watched.prometheus.get("/api/v1/rules").json()["data"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len(rules) >= 7
    assert {rule.get("lastError", "") for rule in rules} == {""}


def test_every_panel_has_something_to_show(watched: Watched) -> None:
    """Each query is understood; those that are not about trouble or jobs have series with numbers once there was traffic."""
    shown = 0
    for query in expressions(watched.app):
        series = watched.ask(query)
        if any(word in query for word in QUIET):
            continue
        assert series, f"nothing for {query}"
        assert any(one["value"][1] != "NaN" for one in series), query
        shown += 1
    assert shown >= 10


def test_the_share_of_stored_answers_is_the_ledgers(watched: Watched) -> None:
    """Of 20 requests 5 were asked before: the panel's share, over everything since the start."""
    dashboard = json.loads((watched.app / "monitoring/grafana/dashboards/app.json").read_text(encoding="utf-8"))
    (query,) = [t["expr"] for p in dashboard["panels"] for t in p["targets"] if p["title"] == "Answered from the cache"]
    totals = query.replace("rate(", "(").replace("[$__rate_interval]", "")
    (share,) = watched.ask(totals)
    assert float(share["value"][1]) == pytest.approx(5 / 20)
