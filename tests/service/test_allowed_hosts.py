"""Names that a service is called by, from the place where it runs."""

from __future__ import annotations

from pathlib import Path

from nbllm.service.configuration import load_service
from tests.service.running import write_settings


def test_the_variable_adds_names(tmp_path: Path) -> None:
    """A container knows its own name, a pod its address: both come on top of what the file says."""
    path = write_settings(tmp_path, 'allowed_hosts = ["a.example.org"]')
    environ = {"NBLLM_SERVICE_ALLOWED_HOSTS": "app, 10.1.2.3,"}
    settings, config = load_service(path, environ)
    assert config.allowed_hosts == ("a.example.org", "app", "10.1.2.3")
    assert settings.notes == ()
    assert load_service(path, {})[1].allowed_hosts == ("a.example.org",)
