"""What a client says of its calls and its money, and how its settings change."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from nbllm import Client, Endpoint, NbllmWarning, Settings, errors
from nbllm.providers.discovery import Found
from nbllm.testing import FakeProvider, Script, offline
from tests.client.helpers import fake_client, rows, until

GROUPS = {
    "model": {"sim/small", "sim/large"},
    "feature": {"", "f"},
    "user": {"", "u"},
    "source": {"model", "cache", ""},
    "status": {"done", "failed"},
    "session": {"mine"},
    "total": {"total"},
}


@offline()
def test_usage_by_every_group(tmp_path: Path) -> None:
    """Every grouping sums the same calls, tokens and dollars; a table of it shows itself."""
    fake = FakeProvider("a", "b", errors.Refused)
    with fake_client(tmp_path, fake, session="mine") as client:
        client.ask("one", feature="f")
        client.ask("one", feature="f", user="u")
        client.ask("two", model="sim/large", user="u")
        with pytest.raises(errors.Refused):
            client.ask("three")
        for by, groups in GROUPS.items():
            table = client.usage(by)
            found = {"" if row.group in (None, "(none)") else row.group for row in table}
            assert found == groups, by
            assert sum(row.calls for row in table) == 4
            assert (sum(row.hits for row in table), sum(row.failed for row in table)) == (1, 1)
            assert sum(row.cost_usd for row in table) == client.spent_session_usd()
            assert by in repr(table)
            assert table._repr_markdown_().startswith(f"| {by} |")
        (day,) = client.usage("day")
        assert len(day.group) == 10
        assert client.usage("total", feature="f")[0].calls == 2
        assert client.usage("total", user="u")[0].calls == 2
        assert client.usage("total", model="sim/l*")[0].calls == 1
        assert sum(row.calls for row in client.usage("total", since=4e9)) == 0
        assert client.usage("model").to_pandas().shape[0] == 2
        with pytest.raises(errors.InvalidRequest, match="colour"):
            client.usage("colour")
        with pytest.raises(errors.InvalidRequest, match="'modle'") as caught:
            client.usage("model", modle="x")
        assert caught.value.hint == "Did you mean model?"


def test_usage_is_of_this_session(tmp_path: Path) -> None:
    """Without a filter only this session's calls are counted; another session or a time shows the others."""
    with fake_client(tmp_path, session="one") as one, fake_client(tmp_path, session="two") as two:
        one.ask("a")
        two.ask("b")
        two.ask("c")
        assert one.usage("total")[0].calls == 1
        assert one.usage("total", session="two")[0].calls == 2
        assert one.usage("session", since=0)[0].calls + one.usage("session", since=0)[1].calls == 3


@offline()
def test_check_slo(tmp_path: Path) -> None:
    """Promises that hold give a report; one that does not raises SloViolated, an AssertionError, with the measured numbers."""
    fake = FakeProvider(*(["x"] * 29), errors.Refused)
    with fake_client(tmp_path, fake) as client:
        for number in range(29):
            client.ask(f"hello {number}")
        with pytest.raises(errors.Refused):
            client.ask("no")
        report = client.check_slo(p50_s=5, p95_s=5, error_rate=0.5, cost_usd=1)
        assert report.ok
        assert report.calls == 30
        with pytest.raises(errors.SloViolated) as caught:
            client.check_slo(p95_s=5, error_rate=0.01)
        assert isinstance(caught.value, AssertionError)
        assert "error_rate" in str(caught.value)
        assert "30 calls" in str(caught.value)
        with pytest.raises(errors.SloViolated, match="p99_s"):
            client.check_slo(p99_s=5)
        with pytest.raises(errors.InvalidRequest, match="no promise"):
            client.check_slo()
        with pytest.raises(errors.InvalidRequest, match="p95_s=-1"):
            client.check_slo(p95_s=-1)
        for _ in range(50):
            client.ask("hello 1")
        assert client.check_slo(p50_s=5).calls == 30, "hits are not counted"


def test_check_slo_with_an_unknown_promise(tmp_path: Path) -> None:
    """A misspelt promise is refused by name: it must not pass for one that holds."""
    with fake_client(tmp_path) as client:
        client.ask("x")
        with pytest.raises(errors.InvalidRequest, match="error_rat'") as caught:
            client.check_slo(error_rat=0.1)
        assert caught.value.hint == "Did you mean error_rate?"


def test_budgets(tmp_path: Path) -> None:
    """Budgets of every kind can be set, shown and lifted; what was spent before counts."""
    with fake_client(tmp_path, FakeProvider(default="one two three")) as client:
        client.ask("hello", feature="f", user="u", max_tokens=10)
        spent = client.spent_session_usd()
        assert spent > 0
        for kind, name in (("session", None), ("day", None), ("feature", "f"), ("user", "u")):
            client.set_budget(kind, Decimal("5.00"), name=name, soft=0.5)
        lines = {line.scope.partition(":")[0]: line for line in client.budget_lines()}
        assert {name: (line.spent_usd, line.hard_usd, line.soft_usd) for name, line in lines.items()} == dict.fromkeys(
            ("session", "day", "feature", "user"), (spent, Decimal("5.00"), Decimal("2.50"))
        )
        client.set_budget("session", spent)
        with pytest.raises(errors.BudgetExceeded) as caught:
            client.ask("more", cache="off")
        assert caught.value.scope.startswith("session:")
        assert (caught.value.limit_usd, caught.value.spent_usd) == (spent, spent)
        client.set_budget("session", None)
        client.ask("more", cache="off", max_tokens=10)
        client.set_budget("request", Decimal("0.0000001"))
        with pytest.raises(errors.BudgetExceeded):
            client.ask("even more", cache="off")
        assert client.settings.origin("budget.request_usd") == "%llm_budget"


BAD_BUDGETS: list[tuple[tuple[Any, ...], dict[str, Any], str]] = [
    (("week", 5), {}, "'week'"),
    (("feature", 5), {}, "needs the feature's name"),
    (("session", -1), {}, "-1"),
    (("session", "much"), {}, "'much'"),
    (("session", float("nan")), {}, "nan"),
    (("session", 5), {"soft": 2}, "2"),
    (("session", 5), {"soft": 0}, "0"),
]


@pytest.mark.parametrize(("arguments", "named", "part"), BAD_BUDGETS)
def test_bad_budgets(arguments: tuple[Any, ...], named: Mapping[str, Any], part: str, tmp_path: Path) -> None:
    """A budget that makes no sense is refused by value, and the budgets stay as they were."""
    with fake_client(tmp_path, budget_session_usd=1) as client:
        before = client.settings
        with pytest.raises(errors.NbllmError, match=part):
            client.set_budget(*arguments, **named)
        assert client.settings is before


BAD_SETTINGS: list[dict[str, Any]] = [
    {"modle": "x"}, {"deadline_s": 0}, {"home": "/elsewhere"}, {"session": "x"}, {"model": "a\nb"}, {"temperature": "hot"},
    {"deadline_s": 5, "ttft_s": -1}, {"endpoints": {"x": {"base_url": "ftp://x"}}}, {"routes": {"r": 5}},
]  # fmt: skip


@pytest.mark.parametrize("values", BAD_SETTINGS, ids=str)
def test_configure_all_or_nothing(values: dict[str, Any], tmp_path: Path) -> None:
    """A change with a mistake in it changes nothing, before and after the first call."""
    with fake_client(tmp_path) as client:
        for _ in range(2):
            before = client.settings
            with pytest.raises(errors.ConfigurationError):
                client.configure(**values)
            assert client.settings is before
            client.ask("hello")


def test_configure(tmp_path: Path) -> None:
    """Settings change for the calls that follow, and say where they came from; new endpoints and routes can be named at once."""
    fake, wired = FakeProvider(), FakeProvider(default="from the lab")
    providers = {"simulated": fake, "openai_compatible": wired}
    with Client(home=tmp_path, model="sim/small", providers=providers) as client:
        client.ask("one")
        client.configure("%llm_config", temperature="0.5", feature="notes")
        client.ask("two")
        client.configure(
            endpoints={"lab": Endpoint(base_url="http://lab.example/v1")}, routes={"cheap": ["lab/m", "sim/small"]}, model="cheap"
        )
        reply = client.ask("three")
        assert (reply.rung, reply.text) == ("lab/m", "from the lab")
        assert [wire.content.temperature for wire in (*fake.requests, *wired.requests)] == [None, 0.5, 0.5]
        assert [row.feature for row in rows(client)] == [None, "notes", "notes"]
        assert client.settings.origin("temperature") == "%llm_config"
        assert client.settings.origin("model") == "client.configure"
        assert client.settings.origin("top_p") == "default"


@offline()
def test_what_was_switched_off_is_tried_again(tmp_path: Path) -> None:
    """After a 401 nothing more is sent, until settings change."""
    fake = FakeProvider(errors.AuthenticationFailed, default="back")
    with fake_client(tmp_path, fake) as client:
        for _ in range(2):
            with pytest.raises(errors.AuthenticationFailed):
                client.ask("hello")
        assert fake.calls == 1
        client.configure(temperature=1)
        assert client.ask("hello").text == "back"


def test_settings_of_files_and_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client without arguments takes files, then variables, then what it is given; each value knows its origin."""
    (tmp_path / "nbllm.toml").write_text('model = "sim/large"\ndeadline_s = 7\ntemperature = 0.1\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NBLLM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NBLLM_TEMPERATURE", "0.2")
    with Client(deadline_s=9, providers={"simulated": FakeProvider()}) as client:
        reply = client.ask("hello")
        assert reply.rung == "sim/large"
        origins = {name: client.settings.origin(name) for name in ("model", "temperature", "deadline_s", "home", "seed")}
        assert origins == {
            "model": "nbllm.toml:1",
            "temperature": "NBLLM_TEMPERATURE",
            "deadline_s": "Client(...)",
            "home": "NBLLM_HOME",
            "seed": "default",
        }
    assert (tmp_path / "home" / "ledger.db").exists()


def test_discovery(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model that is found is shown with the first call, once, and stays for the session, also when settings change."""
    looked: list[Settings] = []

    async def discover(settings: Settings, environ: Mapping[str, str]) -> Found:
        looked.append(settings)
        endpoint = Endpoint(base_url="http://127.0.0.1:11434/v1")
        return Found("ollama/llama", "ollama/llama: a server of yours answers.", endpoint, ())

    monkeypatch.setattr("nbllm.providers.discovery.discover", discover)
    fake = FakeProvider(default=Script(pieces=("a", "b")))
    with Client(home=tmp_path, providers={"openai_compatible": fake}) as client:
        with pytest.warns(NbllmWarning, match="a server of yours answers") as said:
            reply = client.ask("hello")
        assert len(said) == 1
        assert reply.rung == "ollama/llama"
        assert reply.notes == ("ollama/llama: a server of yours answers.",)
        assert client.ask("hello").source == "cache"
        client.configure(temperature=0.5)
        assert client.ask("and now?").rung == "ollama/llama"
        assert list(client.stream("streamed")) == ["a", "b"]
        assert len(looked) == 1
        assert fake.requests[-1].rung.endpoint.base_url == "http://127.0.0.1:11434/v1"


def test_discovery_is_made_once_by_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fifty callers at once look for a model once; one of them is told."""
    import asyncio

    looked = 0

    async def discover(settings: Settings, environ: Mapping[str, str]) -> Found:
        nonlocal looked
        looked += 1
        await asyncio.sleep(0.02)
        return Found("sim/small", "sim/small, because nothing else is there.", None, ())

    monkeypatch.setattr("nbllm.providers.discovery.discover", discover)
    with Client(home=tmp_path, providers={"simulated": FakeProvider()}) as client:

        async def main() -> list[tuple[str, ...]]:
            replies = await asyncio.gather(*(client.aask(f"hello {number}") for number in range(50)))
            return [reply.notes for reply in replies if reply.notes]

        with pytest.warns(NbllmWarning):
            notes = asyncio.run(main())
        assert notes == [("sim/small, because nothing else is there.",)]
        assert looked == 1


def test_discovery_switched_off(tmp_path: Path) -> None:
    """With discover = false a call without a model is an error that says what to do; nothing is looked for."""
    with Client(home=tmp_path, discover=False) as client:
        with pytest.raises(errors.ConfigurationError, match="switched off") as caught:
            client.ask("hello")
        assert "model" in caught.value.hint


def test_on_call(tmp_path: Path) -> None:
    """Hooks of both kinds get a record of every call in a worker thread; one that fails harms nobody."""
    import threading

    seen: list[tuple[str, str, int, bool]] = []

    def hook(record: Any) -> None:
        main = threading.current_thread() is threading.main_thread()
        seen.append(("first", record.call.source, len(record.attempts), main))

    def failing(record: Any) -> None:
        seen.append(("second", record.call.source, len(record.attempts), False))
        raise ZeroDivisionError

    with fake_client(tmp_path, on_call=hook) as client:
        client.on_call(failing)
        assert client.ask("hello").text == "ok"
        until(lambda: len(seen) == 2)  # nobody waits for hooks, so those of the next call might be quicker
        client.on_call(lambda record: seen.append(("third", record.call.source, len(record.attempts), False)))
        assert client.ask("hello").source == "cache"
    assert seen == [
        ("first", "model", 1, False), ("second", "model", 1, False),
        ("first", "cache", 0, False), ("second", "cache", 0, False), ("third", "cache", 0, False),
    ]  # fmt: skip


def test_models_and_stores(tmp_path: Path) -> None:
    """What a face shows is there: models that can be named, the cache's entries, the ledger."""
    with fake_client(tmp_path) as client:
        client.ask("hello")
        assert {"sim/small", "sim/large"} <= {model.id for model in client.models()}
        assert [entry.model for entry in client.store.entries()] == ["sim/small"]
        assert client.store.stats().entries == 1
        assert client.store.purge(model="sim/small") == 1
        assert client.ask("hello").source == "model"
