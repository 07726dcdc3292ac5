"""The table [service]: what may stand there, and what is said about what may not."""

from __future__ import annotations

from dataclasses import fields
from decimal import Decimal
from pathlib import Path

import pytest

from nbllm.errors import SettingsFileError
from nbllm.service.configuration import SERVICE_OPTIONS, TIER_OPTIONS, ServiceSettings, Tier, is_loopback, load_service
from tests.service.running import write_settings


def test_each_field_can_be_set_and_each_setting_has_a_field() -> None:
    """The table of settings and the classes that hold them are one and the same."""
    assert {f.name for f in fields(ServiceSettings)} - {"tiers"} == set(SERVICE_OPTIONS)
    assert {f.name for f in fields(Tier)} - {"name"} == set(TIER_OPTIONS)


def test_defaults_are_closed() -> None:
    """With nothing said: the loopback, no foreign page, no prompt in the log, limits for each key, an own part of the cache."""
    config = ServiceSettings()
    assert not config.public
    assert config.allowed_origins == ()
    assert not config.log_prompts
    assert config.cache_partition == "key"
    assert config.on_state_loss == "refuse"
    assert config.tiers["default"].requests_per_minute == 600
    assert config.max_body_bytes == 1_000_000


def test_tiers_are_read_and_one_that_is_gone_is_none(tmp_path: Path) -> None:
    """A tier that is no longer in the settings is not another one: the default may cost more than it did."""
    path = write_settings(
        tmp_path, "port = 9\n[service.tiers.gold]\nday_usd = '2.50'\npriority = 7\n[service.tiers.default]\nstreams = 1"
    )
    settings, config = load_service(path, {})
    assert config.port == 9
    assert config.tier("gold") == Tier(name="gold", day_usd=Decimal("2.50"), priority=7)
    _, open_ = load_service(write_settings(tmp_path, '[service.tiers.open]\nrequests_per_minute = "none"\nstreams = "none"'), {})
    assert open_.tier("open") == Tier(name="open", requests_per_minute=None, streams=None)
    assert config.tier("silver") is None
    assert config.tier("default") == Tier(streams=1)
    assert settings.ladder == ("sim/small",)
    assert settings.home == tmp_path / ".state"


def test_the_home_is_the_variable_else_the_files_else_beside_it(tmp_path: Path) -> None:
    """An app keeps its state apart from the notebook's."""
    path = write_settings(tmp_path, top='home = "kept"')
    assert load_service(path, {})[0].home == tmp_path / "kept"
    assert load_service(path, {"NBLLM_HOME": "/var/lib/app"})[0].home == Path("/var/lib/app")


@pytest.mark.parametrize(
    ("said", "line", "words"),
    [
        ("prot = 1", 4, "port"),
        ("port = 70000", 4, "65"),
        ("port = '80'", 4, "whole number"),
        ("docs = 3", 4, "true or false"),
        ("\nmax_depth = 0", 5, "at least 1"),
        ("grace_s = inf", 4, "finite"),
        ("cache_partition = 'all'", 4, "key, app"),
        ("allowed_origins = ['*']", 4, "scheme and host"),
        ("allowed_origins = ['https://a.example/path']", 4, "scheme and host"),
        ("[service.tiers.gold]\nday_usd = -1", 5, "negative"),
        ("[service.tiers.gold]\nrpm = 1", 5, "rpm"),
        ("[service.tiers.gold]\npriority = 'none'", 5, "priority"),
        ("[service.tiers.gold]\nrpm = 'none'", 5, "rpm"),
        ("[service.tiers.'Go ld']\nstreams = 1", 4, "name a tier"),
        ("tiers = 5", 4, "table"),
    ],
)
def test_what_is_wrong_is_said_with_file_and_line(tmp_path: Path, said: str, line: int, words: str) -> None:
    """An unknown name, a value out of range or of another type: where it stands, and what would do."""
    with pytest.raises(SettingsFileError) as refused:
        load_service(write_settings(tmp_path, said), {})
    assert refused.value.line == line
    assert words in str(refused.value)


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    """The message names it."""
    with pytest.raises(SettingsFileError, match=r"settings\.toml"):
        load_service(tmp_path / "settings.toml", {})


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("example.org", False),
        ("::ffff:127.0.0.1", True),
        ("128.0.0.1", False),
    ],
)
def test_what_is_the_loopback(host: str, loopback: bool) -> None:
    """Only this machine's own addresses count as not public."""
    assert is_loopback(host) is loopback
    assert ServiceSettings(host=host).public is not loopback


def test_each_setting_is_in_the_documentation() -> None:
    """docs/service-settings.md names every setting of the service and of its tiers."""
    text = (Path(__file__).parents[2] / "docs" / "service-settings.md").read_text(encoding="utf-8")
    for name in (*SERVICE_OPTIONS, *TIER_OPTIONS):
        assert f"`{name}`" in text, name
