"""Webhooks: signed, to named hosts, never inside, not by any detour; tried again until delivered or given up."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import ipaddress
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbllm import errors
from nbllm.service import jobs, webhooks
from nbllm.service.flow_app import webhook_secret
from nbllm.service.webhooks import PATTERN, WebhookRefused, Webhooks, is_public
from nbllm.testing import FakeProvider
from tests.client.helpers import until
from tests.service.flow_apps import Served, raises, say, serving
from tests.service.hook_server import NAME, Names, Receiver, certificate, receiving
from tests.service.test_flow_routes import problem

SECRET = b"x" * 32


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def receiver(pair: tuple[Path, Path]) -> Iterator[Receiver]:
    with receiving(*pair) as made:
        yield made


def hooks(receiver: Receiver, names: Names | None = None, **values: Any) -> Webhooks:
    values.setdefault("is_allowed", lambda _: True)
    return Webhooks([f"{NAME}:{receiver.port}"], SECRET, resolver=names or Names(["127.0.0.1"]), ssl=receiver.context, **values)


def url(receiver: Receiver, path: str = "/hook") -> str:
    return f"https://{NAME}:{receiver.port}{path}"


def send(sender: Webhooks, where: str, body: bytes = b"{}") -> tuple[bool, str]:
    async def main() -> tuple[bool, str]:
        try:
            return await sender.send(where, "caller", "job_1", body)
        finally:
            await sender.aclose()

    return asyncio.run(main())


def test_a_webhook_is_signed(receiver: Receiver) -> None:
    """Who has the caller's own secret can check id, time and body, as any library of standardwebhooks.com does."""
    sender = hooks(receiver)
    assert send(sender, url(receiver), b'{"type": "job.done"}') == (True, "delivered")
    ((headers, body),) = receiver.seen
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    secret = base64.b64decode(sender.secret_of("caller").removeprefix("whsec_"))
    wanted = base64.b64encode(hmac.digest(secret, signed, hashlib.sha256)).decode()
    assert headers["webhook-signature"] == f"v1,{wanted}"
    assert (headers["webhook-id"], headers["host"]) == ("job_1", f"{NAME}:{receiver.port}")
    assert "authorization" not in headers
    assert sender.secret_of("other") != sender.secret_of("caller")
    assert Webhooks([], b"y" * 32).secret_of("caller") != sender.secret_of("caller")


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "255.255.255.255",
        "224.0.0.1", "192.0.2.1", "198.18.0.1", "240.0.0.1", "::1", "::", "fe80::1", "fc00::1", "fd00::1", "ff02::1",
        "::ffff:127.0.0.1", "::ffff:1.1.1.1", "64:ff9b::7f00:1", "64:ff9b::a00:1", "2002:7f00:1::", "2001:0:1::1", "::127.0.0.1",
        "fec0::1", "fe80::1%eth0", "2001:db8::1", "nonsense", "",
    ],
)  # fmt: skip
def test_addresses_inside(address: str, receiver: Receiver) -> None:
    """No connection is made to any of them, whatever name leads there and whatever else it leads to."""
    assert not is_public(address)
    for answers in ([address], ["93.184.215.14", address]):
        over, said = send(hooks(receiver, Names(answers), is_allowed=None), url(receiver))
        assert not over
        assert "Error" in said
    assert receiver.seen == []


@pytest.mark.parametrize("address", ["93.184.215.14", "1.1.1.1", "2606:4700:4700::1111"])
def test_addresses_outside(address: str) -> None:
    """The internet at large may be told."""
    assert is_public(address)


@given(st.ip_addresses())
def test_no_private_address_is_public(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    """Whatever the standard library knows to be special is inside."""
    special = ip.is_private or ip.is_loopback or ip.is_link_local or ip.is_multicast or ip.is_unspecified or ip.is_reserved
    assert not (special and is_public(str(ip)))


def test_a_name_that_changes_its_address(receiver: Receiver) -> None:
    """What is looked at is what is connected to: a second answer of the name, inside, is never asked for, let alone used."""
    looked_at: list[str] = []

    def allowed(address: str) -> bool:
        looked_at.append(address)
        return True

    names = Names(["127.0.0.1"], ["10.0.0.1"])
    assert send(hooks(receiver, names, is_allowed=allowed), url(receiver)) == (True, "delivered")
    assert (names.asked, looked_at) == ([NAME], ["127.0.0.1"])
    rebound = Names(["10.0.0.1"], ["127.0.0.1"])
    assert send(hooks(receiver, rebound, is_allowed=lambda address: address != "10.0.0.1"), url(receiver))[0] is False
    assert len(receiver.seen) == 1
    assert rebound.asked == [NAME]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(status: int, receiver: Receiver) -> None:
    """One that leads inside leads nowhere."""
    receiver.statuses, receiver.location = [status], url(receiver, "/inside")
    over, said = send(hooks(receiver), url(receiver))
    assert (over, "not followed" in said, len(receiver.seen)) == (False, True, 1)


def test_proxies_of_the_environment_are_not_used(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy would connect where we have not looked."""
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert send(hooks(receiver), url(receiver)) == (True, "delivered")


def test_a_certificate_that_is_not_trusted(receiver: Receiver) -> None:
    """Nothing is sent to who cannot prove its name."""
    sender = Webhooks([f"{NAME}:{receiver.port}"], SECRET, resolver=Names(["127.0.0.1"]), is_allowed=lambda _: True)
    assert send(sender, url(receiver))[0] is False
    assert receiver.seen == []


@pytest.mark.parametrize(
    "where",
    [
        "http://hooks.example.org/", "https://other.example.org/", "https://hooks.example.org.evil.org/", "https://hooks.example.org:444/",
        "https://evil.org#hooks.example.org/", "https://hooks.example.org@evil.org/", "https://evil.org/?hooks.example.org",
        "https://evil.org\\@hooks.example.org/", "https://hooks.example.org\n.evil.org/", "https:///hooks.example.org", "ftp://hooks.example.org",
        "//hooks.example.org/", "hooks.example.org", "https://127.0.0.1/", "https://[::1]/", "https://127.1/", "https://2130706433/",
        "https://0x7f000001/", "https://0177.0.0.1/", "https://localhost/", "https://hoo\u212as.example.org/", "https://hooks。example.org/",
        "https://xhooks.example.org/", "https://HOOKS.example.org:0443/", "https://hooks.example.org:443x/", "",
        "javascript:alert(1)", "https://hooks.example.org/ x", "https://hooks.example.org/\r\nHost: evil.org", "https://sub.wild.example.net.evil.org/",
        "https://wild.example.net/", "https://evilwild.example.net/",
    ],
)  # fmt: skip
def test_addresses_that_are_refused(where: str) -> None:
    """Only https, only named hosts and ports, and no way of writing that one parser reads otherwise than another."""
    sender = Webhooks(["hooks.example.org", "*.wild.example.net", "127.0.0.1", "localhost"], SECRET)
    if where == "https://localhost/":  # named by the app's own settings; its address is inside, and refused when it is sent
        assert asyncio.run(_sent(sender, where))[0] is False
        return
    with pytest.raises(WebhookRefused):
        sender.check(where)
    assert asyncio.run(_sent(sender, where))[0] is True, "it is never tried"


async def _sent(sender: Webhooks, where: str) -> tuple[bool, str]:
    try:
        return await sender.send(where, "caller", "id", b"{}")
    finally:
        await sender.aclose()


@pytest.mark.parametrize(
    "where",
    [
        "https://hooks.example.org",
        "https://hooks.example.org/a/b?c=d&e=%20",
        "https://HOOKS.example.org:443/",
        "https://a.wild.example.net/x",
    ],
)
def test_addresses_that_are_taken(where: str) -> None:
    """Named hosts, those below a named one, on the port of https."""
    assert Webhooks(["hooks.example.org", "*.wild.example.net"], SECRET).check(where) == where


def test_without_hosts_there_are_no_webhooks() -> None:
    """Nothing is allowed by default."""
    with pytest.raises(WebhookRefused, match="webhook_hosts"):
        Webhooks([], SECRET).check("https://hooks.example.org/")


# ---------------------------------------------------------------------------------------------------- with jobs


def with_hooks(served: Served, receiver: Receiver) -> None:
    """Let the service's webhooks lead to the receiver, with the settings' own hosts."""
    sender = served.it.service.webhooks
    sender._resolver, sender._is_allowed, sender._ssl = Names(["127.0.0.1"]), lambda _: True, receiver.context


def test_a_job_tells_its_end(tmp_path: Path, receiver: Receiver) -> None:
    """Done, failed and cancelled are told, with the result, signed with the secret that the key can ask for."""
    fake = FakeProvider(default="fine")
    with serving(tmp_path, fake, (say, raises), service=f'webhook_hosts = ["{NAME}:{receiver.port}"]') as served:
        with_hooks(served, receiver)
        for name in ("say", "raises"):
            answer = served.http.post(f"/flows/{name}/jobs", json={"text": "a"}, headers={"Webhook-Url": url(receiver)})
            assert answer.status_code == 202
        until(lambda: len(receiver.seen) == 2)
        told = {body["type"]: body["data"] for body in receiver.bodies}
        assert (told["job.done"]["result"], told["job.failed"]["error"]["status"]) == ("fine", 500)
        secret = base64.b64decode(served.http.get("/webhooks/secret").json()["secret"].removeprefix("whsec_"))
        for headers, body in receiver.seen:
            signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
            assert headers["webhook-signature"] == "v1," + base64.b64encode(hmac.digest(secret, signed, hashlib.sha256)).decode()


def test_a_webhook_is_tried_again(tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """A receiver that is down for a while gets it later, under the same id; 410 means never again."""
    monkeypatch.setattr(jobs, "RETRY_AFTER_S", (0.01, 0.01, 0.01))
    monkeypatch.setattr(jobs, "LOOK_EVERY_S", 0.02)
    receiver.statuses = [500, 503, 200, 410]
    with serving(tmp_path, flows=(say,), service=f'webhook_hosts = ["{NAME}:{receiver.port}"]') as served:
        with_hooks(served, receiver)
        served.http.post("/flows/say/jobs", json={"text": "a"}, headers={"Webhook-Url": url(receiver)})
        until(lambda: len(receiver.seen) == 3)
        assert len({headers["webhook-id"] for headers, _ in receiver.seen}) == 1
        served.http.post("/flows/say/jobs", json={"text": "b"}, headers={"Webhook-Url": url(receiver)})
        until(lambda: len(receiver.seen) == 4)
        served.http.post("/flows/say/jobs", json={"text": "c"}, headers={"Webhook-Url": url(receiver)})
        until(lambda: len(receiver.seen) == 5)
    assert len(receiver.seen) == 5


def test_a_webhook_that_is_given_up(tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """After its last try nobody asks again, and the job's result is still there."""
    monkeypatch.setattr(jobs, "RETRY_AFTER_S", (0.01, 0.01))
    monkeypatch.setattr(jobs, "LOOK_EVERY_S", 0.02)
    receiver.statuses = [500] * 20
    with serving(tmp_path, flows=(say,), service=f'webhook_hosts = ["{NAME}:{receiver.port}"]') as served:
        with_hooks(served, receiver)
        place = served.http.post("/flows/say/jobs", json={"text": "a"}, headers={"Webhook-Url": url(receiver)}).headers["location"]
        until(lambda: len(receiver.seen) == 3)
        served.http.post("/flows/say/jobs", json={"text": "b"}, headers={"Webhook-Url": url(receiver)})
        until(lambda: len(receiver.seen) == 6)
        assert served.http.get(place).json()["status"] == "done"
    assert len(receiver.seen) == 6


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("https://127.0.0.1/", "must name its host"),
        ("https://evil.example.org/", "not among webhook_hosts"),
        ("http://hooks.example.org/", "must be https://NAME/PATH"),
        ("nonsense", "must be https://NAME/PATH"),
        ("", "must be https://NAME/PATH"),
    ],
)
def test_a_job_with_an_address_that_is_refused(where: str, said: str, tmp_path: Path) -> None:
    """It is not taken, and what is wrong is said in words; the documentation has the pattern."""
    with serving(tmp_path, flows=(say,), service='webhook_hosts = ["hooks.example.org"]') as served:
        answer = served.http.post("/flows/say/jobs", json={"text": "a"}, headers={"Webhook-Url": where})
        assert (answer.status_code, problem(answer)["parameter"].rpartition(".")[2]) == (422, "Webhook-Url")
        assert problem(answer)["type"] == "urn:nbllm:problem:webhook-refused"
        assert said in problem(answer)["detail"]
        assert served.http.get("/flows/say/jobs").json()["jobs"] == []
        (header,) = (
            one
            for one in served.http.get("/openapi.json").json()["paths"]["/flows/say/jobs"]["post"]["parameters"]
            if one["name"] == "Webhook-Url"
        )
        assert header["schema"]["pattern"] == PATTERN


def test_the_secret_of_the_app(tmp_path: Path) -> None:
    """Made once, the user's alone; a variable for several replicas wins, and one that is short is refused."""
    made = webhook_secret(tmp_path / "home", {})
    assert len(made) == 32
    assert webhook_secret(tmp_path / "home", {}) == made
    path = tmp_path / "home" / "webhook-secret"
    assert path.stat().st_mode & 0o077 == 0
    assert webhook_secret(tmp_path / "home", {"NBLLM_WEBHOOK_SECRET": "s" * 32}) == b"s" * 32
    with pytest.raises(errors.ConfigurationError, match="31 characters"):
        webhook_secret(tmp_path / "home", {"NBLLM_WEBHOOK_SECRET": "s" * 31})
    path.write_bytes(b"short")
    with pytest.raises(errors.ConfigurationError, match="no secret"):
        webhook_secret(tmp_path / "home", {})
    assert webhooks.PATTERN.startswith("^https://")
