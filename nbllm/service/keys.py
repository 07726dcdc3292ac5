"""The keys of a service: hashes in one small file, made and revoked by `nbllm keys` while services run.

A key is "nbllm_<id>_<secret>"; the id finds its row and is what logs and ledgers name, the secret has 256 bits. What is kept is
the SHA-256 of the whole text: of a secret of that size it cannot be guessed from a hash, slow or not. Files are replaced as a whole
(a reader sees the old or the new one) under a lock (two writers do not lose each other's change).

NBLLM_SERVICE_KEY holds one more key, of 32 bytes or more, for those who bring their own (a secret of Kubernetes, say): its tier is
"default" and its id "env". NBLLM_SERVICE_KEYS_FILE names another file.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nbllm.errors import ConfigurationError, InvalidRequest, StorageError
from nbllm.redaction import register_secret
from nbllm.service.configuration import DEFAULT_TIER
from nbllm.settings.suggest import did_you_mean
from nbllm.storage.home import own_directory
from nbllm.storage.locks import try_lock

_log = logging.getLogger("nbllm.service")
FILE = "service-keys.json"
FILE_VARIABLE = "NBLLM_SERVICE_KEYS_FILE"
KEY_VARIABLE = "NBLLM_SERVICE_KEY"
MINIMUM_BYTES = 32
ENV_ID = "env"
_SHAPE = re.compile(r"nbllm_([0-9a-f]{8})_[A-Za-z0-9_-]{43}\Z")
_LOOK_EVERY_S = 0.25
"""How old what a running service knows may be: a revoked key works so much longer at most."""
_LOOK_FOR_ONE_EVERY_S = 0.02
"""The same for a key that is not known: it may be new. No less, so that wrong keys cannot keep a service reading a broken file."""
_LOCK_WAIT_S = 5.0
_NOTHING = hashlib.sha256(b"").digest()
"""What an unknown key is compared with, so that it takes as long as a known one."""
_MOST_BYTES = 4_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One key, without itself. made_at: Unix seconds. note: what its maker wrote."""

    id: str
    sha256: str
    tier: str
    made_at: float
    note: str = ""


class KeyStore:
    """The keys of one file. Safe for threads; other processes' changes are seen within a quarter of a second.

    Raises ConfigurationError for a file that is none of ours, StorageError where the disk refuses.
    """

    def __init__(
        self,
        path: Path,
        *,
        environ: Mapping[str, str] | None = None,
        former: Path | None = None,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path = path
        self.former = None if former is None or path.exists() or not former.exists() else former
        """A file of an nbllm from before, which is not read: its keys opened every app of a folder of this name. None: there is
        none, or there were keys of this app's own when the store was opened."""
        self._now_s = now_s
        self._looked_at_s = float("-inf")
        self._mark: tuple[int, int, int] | None = None
        self._rows: Mapping[str, tuple[bytes, Key]] = {}
        self._told = ""
        self._given = _given_key(os.environ if environ is None else environ)

    def __repr__(self) -> str:
        """Return where it is."""
        return f"KeyStore({str(self.path)!r})"

    @property
    def readable(self) -> bool:
        """Whether there is a key that a caller could show."""
        return bool(self.list())

    def verify(self, text: str) -> Key | None:
        """Return the key that a text is, None for none. Takes about 5 us, as long for a wrong one as for a right one.

        Keys that were known stay good while their file cannot be read; the log says so, once. For one that is not known the file is
        looked at now: it may have been made a moment ago.
        """
        shape = _SHAPE.match(text)
        self._look_gently(_LOOK_EVERY_S if shape is None or shape[1] in self._rows else _LOOK_FOR_ONE_EVERY_S)
        digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
        row = self._rows.get(shape[1]) if shape else self._given
        same = hmac.compare_digest(digest, row[0] if row else _NOTHING)
        return row[1] if row and same else None

    def knows(self, key_id: str) -> bool:
        """Whether there is a key of that id, as `verify` sees it: for work that was taken before."""
        self._look_gently()
        return key_id in self._rows or (self._given is not None and self._given[1].id == key_id)

    def list(self) -> tuple[Key, ...]:
        """Return all keys, the oldest first."""
        self._looked_at_s = float("-inf")
        self._look()
        rows = [key for _, key in self._rows.values()]
        return tuple(([self._given[1]] if self._given else []) + sorted(rows, key=lambda key: key.made_at))

    def counted(self) -> str:
        """Return how many keys are where, for a person."""
        given = int(self._given is not None)
        kept = len(self.list()) - given
        parts = [f"{kept} in {self.path}"] if kept or not given else []
        return ", ".join([*parts, f"{given} of {KEY_VARIABLE}"] if given else parts)

    def make(self, tier: str = DEFAULT_TIER, *, note: str = "") -> tuple[str, Key]:
        """Make a key; return its text, which is kept nowhere, and its row."""
        if len(note) > 200 or not note.isprintable():
            raise InvalidRequest("A note is one line of at most 200 characters.")
        with self._changing() as rows:
            key_id = secrets.token_hex(4)
            while key_id in rows:
                key_id = secrets.token_hex(4)
            text = f"nbllm_{key_id}_{secrets.token_urlsafe(32)}"
            register_secret(text)
            digest = hashlib.sha256(text.encode()).hexdigest()
            rows[key_id] = Key(id=key_id, sha256=digest, tier=tier, made_at=time.time(), note=note)
        return text, rows[key_id]

    def revoke(self, key_id: str) -> Key:
        """Take a key back, by its id. InvalidRequest when there is none."""
        if self._given and key_id == ENV_ID:
            raise InvalidRequest(f"That key is in {KEY_VARIABLE}.", hint="Unset the variable and start the service anew.")
        with self._changing() as rows:
            if key_id not in rows:
                raise InvalidRequest(f"There is no key {key_id!r} in {self.path}.", hint=did_you_mean(key_id, rows))
            return rows.pop(key_id)

    # ------------------------------------------------------------------------------------------------ the file

    def _look_gently(self, every_s: float = _LOOK_EVERY_S) -> None:
        """Look; what was known stays where the file cannot be read, and that is said once."""
        try:
            self._look(every_s)
        except (ConfigurationError, StorageError) as exc:
            if self._told != exc.summary:
                self._told = exc.summary
                _log.warning("%s The keys that were known before go on working.", exc.summary)

    def _look(self, every_s: float = _LOOK_EVERY_S) -> None:
        """Read the file if it changed, and was not looked at just before.

        One that is gone holds no keys; for one that cannot be read, what was known stays.
        """
        now_s = self._now_s()
        if now_s - self._looked_at_s < every_s:
            return
        self._looked_at_s = now_s
        try:
            info = self.path.stat()
        except (FileNotFoundError, NotADirectoryError):
            self._mark, self._rows = None, {}
            return
        except OSError as exc:
            raise _unreadable(self.path, exc) from None
        mark = (info.st_mtime_ns, info.st_ino, info.st_size)
        if mark != self._mark:
            rows = _read(self.path)
            self._rows = {key.id: (bytes.fromhex(key.sha256), key) for key in rows.values()}
            self._mark, self._told = mark, ""

    @contextmanager
    def _changing(self) -> Iterator[dict[str, Key]]:
        """Yield the rows, to be changed, and write them when the block ends well."""
        try:
            own_directory(self.path.parent)
            with _locked(self.path.with_suffix(".lock")):
                rows = _read(self.path) if self.path.exists() else {}
                yield rows
                _write(self.path, rows)
        except OSError as exc:
            raise StorageError(f"{self.path} cannot be written: {exc.strerror or exc}.") from None
        self._looked_at_s = float("-inf")


def open_keys(home: Path, keys_file: str, environ: Mapping[str, str] | None = None, *, folder: Path | None = None) -> KeyStore:
    """Return the keys of an app: of the file that the variable names, else the settings', else one in the home.

    folder: the app's. In a home that it may share with other apps it has a file of its own, told apart by the whole path: a key of
    one app opens no other. An app that is moved needs new keys, as it begins without jobs there.
    """
    environ = os.environ if environ is None else environ
    given = environ.get(FILE_VARIABLE) or keys_file
    if given or folder is None or home.resolve() == folder.resolve() / ".state":
        return KeyStore(Path(given or home / FILE).expanduser().absolute(), environ=environ)
    name = folder.resolve().name
    plain = re.sub("[^A-Za-z0-9_.-]+", "-", name)[:60]
    told_apart = "" if plain == name else f"-{_short_hash(name)}"
    path = home / f"service-keys-{plain}-{_short_hash(str(folder.resolve()), 16)}.json"
    return KeyStore(path.absolute(), environ=environ, former=home / f"service-keys-{plain}{told_apart}.json")


def former_keys(path: Path) -> str:
    """Return what a person is told of a file that is not read any more."""
    return f"Keys in {path} count no more: they opened every app of that folder name. Make new ones, then delete it."


def _short_hash(text: str, digits: int = 8) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:digits]


def _given_key(environ: Mapping[str, str]) -> tuple[bytes, Key] | None:
    text = environ.get(KEY_VARIABLE, "")
    if not text:
        return None
    register_secret(text)
    if len(text.encode()) < MINIMUM_BYTES or _SHAPE.match(text) or not text.isascii() or not text.isprintable() or " " in text:
        raise ConfigurationError(
            f"{KEY_VARIABLE} is no key for a service: it needs {MINIMUM_BYTES} bytes or more of random ASCII without spaces, and "
            "must not look like one of nbllm's own.",
            hint='Make one: python -c "import secrets; print(secrets.token_urlsafe(32))"',
        )
    digest = hashlib.sha256(text.encode()).digest()
    return digest, Key(id=ENV_ID, sha256=digest.hex(), tier=DEFAULT_TIER, made_at=0.0, note=f"of {KEY_VARIABLE}")


def _read(path: Path) -> dict[str, Key]:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise _broken(path)
        table: Any = json.loads(path.read_text(encoding="utf-8"))
        rows = [Key(**row) for row in table["keys"]]
        if any(len(bytes.fromhex(row.sha256)) != 32 or not isinstance(row.tier, str) for row in rows):
            raise _broken(path)
        return {row.id: row for row in rows}
    except OSError as exc:
        raise _unreadable(path, exc) from None
    except (ValueError, TypeError, KeyError, RecursionError):
        raise _broken(path) from None


def _write(path: Path, rows: Mapping[str, Key]) -> None:
    """Replace the file: whoever reads sees the old one or the new one, and a full disk leaves the old one."""
    text = json.dumps({"version": 1, "keys": [asdict(row) for row in rows.values()]}, indent=1)
    beside = path.with_name(f"{path.name}.{os.getpid()}-{secrets.token_hex(4)}.new")
    try:
        fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        with suppress(OSError):
            beside.unlink()
        raise


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        until_s = time.monotonic() + _LOCK_WAIT_S
        while not try_lock(fd):
            if time.monotonic() > until_s:
                raise StorageError(f"{path} is locked by another process.", hint="Is another `nbllm keys` still running?")
            time.sleep(0.02)
        yield
    finally:
        os.close(fd)


def _unreadable(path: Path, exc: OSError) -> StorageError:
    return StorageError(f"The keys in {path} cannot be read: {exc.strerror or exc}.")


def _broken(path: Path) -> ConfigurationError:
    return ConfigurationError(
        f"{path} holds no keys of nbllm.", hint="Move it away and make new keys: nbllm keys make DIR. Old keys stop working."
    )
