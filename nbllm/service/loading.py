"""The app of a folder: `app` of its app.py, else one of its settings alone."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

from fastapi import FastAPI

from nbllm.errors import ConfigurationError
from nbllm.service.app import create_app


def load_app(folder: Path) -> FastAPI:
    """Return the app of a folder, run as if from within it. Raises ConfigurationError."""
    os.chdir(folder)
    if not (folder / "app.py").is_file():
        return create_app(settings=folder / "settings.toml")
    sys.path.insert(0, str(folder))
    found = getattr(importlib.import_module("app"), "app", None)
    if not isinstance(found, FastAPI):
        raise ConfigurationError(f"{folder / 'app.py'} has no app.", hint="It says: app = create_app(flows=[...], settings=...)")
    return found
