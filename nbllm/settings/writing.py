"""Settings written into the project's settings file: comments and order stay, what changed is shown, nothing is ever half written.

    change = changed({"semantic_cache.mode": "on"})
    print(change.diff)
    change.write()

It is nbllm.toml, or [tool.nbllm] of pyproject.toml, where settings are read from (load.py); without either, a new nbllm.toml in the
working directory. A file that is no TOML, that may not be written, or that changed meanwhile is left alone.
"""

from __future__ import annotations

import difflib
import os
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nbllm.errors import ConfigurationError, SettingsFileError
from nbllm.redaction import is_secret_name, redact
from nbllm.settings.load import find_file

NAME = "nbllm.toml"
_NAMES_A_VARIABLE = ("_env", "_tokens")
"""Ends of names that hold no secret, though a part of them looks as if they did."""


@dataclass(frozen=True, slots=True)
class Change:
    """A settings file, and what it would hold. before: its text, None where there is no file yet. after: the new one."""

    path: Path
    before: str | None
    after: str

    @property
    def diff(self) -> str:
        """What changes, as a unified diff; "" for nothing. Redacted: lines around the change are somebody's own."""
        old, new = ((text or "").splitlines() for text in (self.before, self.after))
        lines = difflib.unified_diff(old, new, f"{self.path.name} before", f"{self.path.name} now", lineterm="", n=2)
        return redact("\n".join(lines))

    def check(self) -> None:
        """Raise SettingsFileError where `write` would: the file may not be written, or is another one by now."""
        path = self.path
        try:
            folder, there = path.parent.stat(), path.stat() if path.exists() else None
            now = None if there is None else _text_of(path)
        except OSError as error:
            raise _refused(path, error.strerror or str(error)) from None
        if now != self.before:
            raise SettingsFileError("was changed in the meantime, and is left as it is", path=str(path), hint="Apply once more.")
        # Asked of the modes too: for root, everything may be written.
        if there is not None and not (there.st_mode & 0o222 and os.access(path, os.W_OK)):
            raise _refused(path, "it is read-only")
        if not (folder.st_mode & 0o222 and os.access(path.parent, os.W_OK)):
            raise _refused(path, "its folder is read-only")

    def write(self) -> None:
        """Write the file, all of it or nothing. Raises SettingsFileError."""
        self.check()
        if self.after == self.before:
            return
        draft = None
        try:
            number, draft = tempfile.mkstemp(dir=self.path.parent, prefix=f".{self.path.name}.")
            with os.fdopen(number, "wb") as file:
                file.write(self.after.encode("utf-8"))
            if self.before is not None:
                shutil.copymode(self.path, draft)
            else:
                Path(draft).chmod(0o644)  # it holds no key, and others who work in the project read it
            Path(draft).replace(self.path)
        except OSError as error:
            if draft is not None:
                with suppress(OSError):
                    Path(draft).unlink()
            raise _refused(self.path, error.strerror or str(error)) from None


def changed(values: Mapping[str, Any], *, start: Path | None = None) -> Change:
    """Return the change that writes these settings: flat names ("semantic_cache.mode") and what TOML can hold; None takes one out.

    A mapping becomes a table, whose other fields stay. start: where the file is looked for, upwards (the working directory).
    Nothing is written yet. Raises SettingsFileError for a file that cannot be read or changed safely, ConfigurationError for a
    value that holds a key.
    """
    import tomllib

    _refuse_keys(values)
    folder = Path.cwd() if start is None else Path(start)
    found = find_file(folder)
    path = (found[0] if found else folder.absolute() / NAME).resolve()
    prefix = found[2] if found else ()
    before = _text_of(path) if found else None
    wanted = _parsed(path, before or "")
    after = _edited(path, before or "", prefix, values)
    _put(wanted, prefix, values)
    # What is written is read back first: an editor of TOML that went wrong must not cost anybody a setting.
    if tomllib.loads(after.replace("\r\n", "\n").removeprefix("\ufeff")) != wanted:
        raise SettingsFileError(
            "cannot be changed here without touching more than was asked for",
            path=str(path),
            hint=f"Write it by hand:\n{as_toml(values)}",
        )
    return Change(path, before, after)


def as_toml(values: Mapping[str, Any]) -> str:
    """Return settings as the text of an nbllm.toml of their own, for somebody to copy."""
    return _edited(Path(NAME), "", (), {name: value for name, value in values.items() if value is not None}).strip("\n") + "\n"


def _refuse_keys(values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        if isinstance(value, Mapping):
            _refuse_keys({f"{name}.{inner}": one for inner, one in value.items()})
            continue
        texts = [one for one in (value if isinstance(value, list | tuple) else (value,)) if isinstance(one, str)]
        last = name.rpartition(".")[2]
        secret = is_secret_name(last) and not last.endswith(_NAMES_A_VARIABLE)
        if any(redact(text) != text for text in texts) or (secret and texts):
            raise ConfigurationError(
                f"{name} holds a key, which is never written into a file.",
                hint="Settings hold names of environment variables; put the key into one.",
            )


def _edited(path: Path, text: str, prefix: tuple[str, ...], values: Mapping[str, Any]) -> str:
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    mark = "\ufeff" if text.startswith("\ufeff") else ""
    newline = "\r\n" if "\r\n" in text else "\n"
    try:
        document = tomlkit.parse(text.removeprefix(mark).replace("\r\n", "\n"))
        _put(document, prefix, values, make=tomlkit.table)
        written = tomlkit.dumps(document)
    except (TOMLKitError, TypeError, ValueError, AttributeError) as error:
        problem = f"cannot be changed: {error}"
        raise SettingsFileError(problem, path=str(path), hint=f"Write it by hand: {dict(values)}") from None
    return mark + written.replace("\n", newline)


def _put(document: Any, prefix: tuple[str, ...], values: Mapping[str, Any], make: Any = dict) -> None:
    """Set, or with None take out, values in nested tables; `make` makes a table that is missing."""
    for name, value in values.items():
        _put_one(document, (*prefix, *_parts(name)), value, make)


def _put_one(document: Any, keys: tuple[str, ...], value: Any, make: Any) -> None:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            _put_one(document, (*keys, key), inner, make)
        return
    place = document
    for table in keys[:-1]:
        if table not in place:
            place[table] = make()
        place = place[table]
    plain = list(value) if isinstance(value, tuple) else value
    if plain is None:
        if keys[-1] in place:
            del place[keys[-1]]
    elif keys[-1] not in place or place[keys[-1]] != plain:  # an equal value keeps how it is written
        place[keys[-1]] = plain


def _parts(name: str) -> tuple[str, ...]:
    """Return the keys of a flat name. What follows "routes." or "endpoints." is one name, dots and all."""
    head, dot, rest = name.partition(".")
    return (head, rest) if dot else (name,)


def _parsed(path: Path, text: str) -> dict[str, Any]:
    import re
    import tomllib

    try:
        return tomllib.loads(text.removeprefix("\ufeff").replace("\r\n", "\n"))
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"line (\d+)", str(error))
        raise SettingsFileError(
            f"no valid TOML, so nothing was changed: {error}",
            path=str(path),
            line=int(line[1]) if line else None,
            hint="Correct the file and apply again.",
        ) from None


def _text_of(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError:
        raise SettingsFileError("not UTF-8", path=str(path), hint="Save the file as UTF-8.") from None


def _refused(path: Path, why: str) -> SettingsFileError:
    return SettingsFileError(
        f"cannot be written: {why}. Nothing was changed", path=str(path), hint="Make it writable, or copy the settings by hand."
    )
