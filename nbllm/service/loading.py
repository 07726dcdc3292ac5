"""The app of a folder: `app` of its app.py, else one of its settings alone."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from pathlib import Path

from fastapi import FastAPI

from nbllm.errors import ConfigurationError, NbllmError
from nbllm.redaction import redact
from nbllm.service.app import create_app


def load_app(folder: Path) -> FastAPI:
    """Return the app of a folder, run as if from within it; each call runs its app.py anew. Raises ConfigurationError."""
    os.chdir(folder)
    if not (folder / "app.py").is_file():
        return create_app(settings=folder / "settings.toml")
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    sys.modules.pop("app", None)
    try:
        found = getattr(importlib.import_module("app"), "app", None)
    except NbllmError:
        raise
    except Exception as exc:
        frames = [f for f in traceback.extract_tb(exc.__traceback__) if Path(f.filename).is_relative_to(folder.resolve())]
        if isinstance(exc, OSError) and all(Path(f.filename).name == "app.py" for f in frames):
            raise  # of the service itself: its home or its Redis, which may come back
        where = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
        raise ConfigurationError(
            f"{folder / 'app.py'} cannot be imported: {type(exc).__name__}: {redact(str(exc))}{where}.",
            hint="Does it name the flows as flows.py has them? `python -c 'import app'` in the folder shows the whole traceback.",
        ) from exc
    if not isinstance(found, FastAPI):
        raise ConfigurationError(f"{folder / 'app.py'} has no app.", hint="It says: app = create_app(flows=[...], settings=...)")
    return found
