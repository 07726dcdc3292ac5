"""/ready: 200 when the service can work, else 503 with what is missing; /health: 200 while the process is there."""

from __future__ import annotations

from pathlib import Path

from nbllm.engines.supervised import free_port
from nbllm.errors import StorageError
from nbllm.service import create_app
from tests.service.raw import Line, ask, post
from tests.service.running import Running, running, write_settings

ENDPOINT = '[endpoints.lab]\nbase_url = "http://127.0.0.1:{port}/v1"\ninput_usd_per_mtok = 0\noutput_usd_per_mtok = 0\n'


def missing(app: Running) -> list[str]:
    """Return what /ready says is missing, asked anew."""
    app.service.readiness = None
    answer = ask(app, "/ready")
    assert (answer.status == 503) == bool(answer.json.get("missing"))
    if answer.status == 503:
        assert int(answer.headers["retry-after"]) >= 1
    assert ask(app, "/health").status == 200
    return list(answer.json.get("missing", []))


def test_a_model_that_rests_makes_it_unready_and_another_one_ready(tmp_path: Path) -> None:
    """When every model of the settings has its breaker open, nothing can be answered; with one that is well it is ready."""
    top = 'ladder = ["lab/x"]\nretries = 0\n' + ENDPOINT.format(port=free_port())
    path = write_settings(tmp_path, top=top)
    with running(create_app(settings=path)) as app:
        assert missing(app) == []
        for number in range(6):
            body = b'{"model": "lab/x", "messages": [{"role": "user", "content": "Hi %d"}]}' % number
            assert post(app, "/v1/chat/completions", body).status in {502, 503}
        assert missing(app) == ["a model that can be asked"]
        assert 'nbllm_breaker_state{rung="lab/x"} 2.0' in ask(app, "/metrics", headers=app.headers).body.decode()
        app.service.client.configure(ladder=["lab/x", "sim/small"])
        assert missing(app) == []


def test_a_key_that_is_not_set_makes_it_unready(tmp_path: Path) -> None:
    """A model whose key is in no variable cannot be asked, and that is known before the first request."""
    top = 'ladder = ["lab/x"]\n' + ENDPOINT.format(port=1) + 'api_key_env = "NO_SUCH_VARIABLE_FOR_NBLLM"\n'
    with running(create_app(settings=write_settings(tmp_path, top=top))) as app:
        assert missing(app) == ["a model that can be asked"]


def test_what_counts_and_what_lasts_must_be_there(tmp_path: Path) -> None:
    """Without the state store, without counters, with keys that cannot be read: not ready, and each is named."""
    with running(create_app(settings=write_settings(tmp_path))) as app:
        assert missing(app) == []
        service = app.service

        async def gone(*_: object) -> object:
            raise StorageError("gone")

        async def out_of_reach() -> bool:
            return False

        service.client.abudget_lines = gone  # type: ignore[method-assign, assignment]
        service.limiter.works = out_of_reach  # type: ignore[method-assign]
        assert missing(app) == ["state store", "limits"]
        (tmp_path / ".state" / "service-keys.json").write_text("no keys")
        assert missing(app) == ["state store", "limits", "keys"]
        (tmp_path / ".state" / "service-keys.json").unlink()
        assert missing(app) == ["state store", "limits", "keys"]


def test_while_it_ends_it_takes_nothing_new_and_says_so(tmp_path: Path) -> None:
    """Draining: /ready is 503, requests get 503 with Retry-After and the end of their connection, /health stays 200."""
    with running(create_app(settings=write_settings(tmp_path))) as app:
        app.loop.call_soon_threadsafe(app.service.drain)
        while not app.service.draining:
            pass
        assert missing(app) == ["draining"]
        with Line(app) as line:
            refused = line.ask("/v1/models", headers=app.headers)
            assert refused.status == 503
            assert int(refused.headers["retry-after"]) >= 1
            assert refused.headers["connection"] == "close"
            assert line.closed()


def test_what_keys_may_still_spend_today_is_a_number_for_each_tier(tmp_path: Path) -> None:
    """A tier with a daily budget shows what its key with the least has left, with no label for a key."""
    path = write_settings(tmp_path, "[service.tiers.paying]\nday_usd = 2\n[service.tiers.poor]\nday_usd = 0.5")
    with running(create_app(settings=path), tier="paying") as app:
        app.service.keys.make("paying")
        app.service.keys.make("poor")
        body = b'{"model": "sim/small", "messages": [{"role": "user", "content": "Hi"}]}'
        assert post(app, "/v1/chat/completions", body).status == 200
        lines = ask(app, "/metrics", headers=app.headers).body.decode().splitlines()
        left = dict(
            line.removeprefix("nbllm_budget_left_usd").split(" ") for line in lines if line.startswith("nbllm_budget_left_usd{")
        )
        assert set(left) == {'{scope="tier:paying"}', '{scope="tier:poor"}'}
        assert 1.9 < float(left['{scope="tier:paying"}']) < 2.0
        assert float(left['{scope="tier:poor"}']) == 0.5


def test_what_budgets_leave_is_a_number(tmp_path: Path) -> None:
    """nbllm_budget_left_usd goes down with what is spent."""
    path = write_settings(tmp_path, top='ladder = ["sim/small"]\n[budget]\nday_usd = 2\n')
    with running(create_app(settings=path)) as app:

        def left() -> float:
            text = ask(app, "/metrics", headers=app.headers).body.decode()
            return float(text.split('nbllm_budget_left_usd{scope="day"} ')[1].split("\n")[0])

        assert left() == 2.0
        assert (
            post(app, "/v1/chat/completions", b'{"model": "sim/small", "messages": [{"role": "user", "content": "Hi"}]}').status
            == 200
        )
        assert 1.9 < left() < 2.0
