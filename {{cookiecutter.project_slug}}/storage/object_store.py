"""`s3://bucket/prefix`, `gs://…` and `az://…`: an object store, through obstore.

https://developmentseed.org/obstore/ names the options of each store: `endpoint`, `region`, keys. What is not given is
read from the environment's usual variables, such as AWS_ACCESS_KEY_ID.

A process that has used a store cannot fork any more: obstore's threads do not live on in the other one. So nothing may
be read or written while the service is being made.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from itertools import chain, islice, pairwise
from typing import Any, BinaryIO

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, NotFoundError
from obstore.store import AzureStore, GCSStore, S3Store

from storage.backend import ABANDONED, SPOOL, Backend, Entry
from storage.errors import AlreadyExists, NotFound, PermissionDenied, StorageError
from storage.paths import FORBIDDEN, PARTIAL, is_partial, new_partial
from storage.streams import CHUNK, RemoteFile

STORES: dict[str, Any] = {"s3": S3Store, "gs": GCSStore, "az": AzureStore}
TIMEOUTS = {"connect_timeout": "5s", "timeout": "30s"}
RETRIES: Any = {"max_retries": 3, "retry_timeout": timedelta(seconds=60)}
# A health check must not wait for as long as a large file may.
CHECK_TIMEOUTS = {"connect_timeout": "2s", "timeout": "5s"}
# Larger files are uploaded in parts of this size, two at a time.
PART = SPOOL
# Objects that one request may list or delete.
BATCH = 1000
# What errors say, and what we say for it. Their texts may hold keys and signed addresses, which nobody shall see.
REASONS = (
    ("NoSuchBucket|ContainerNotFound", "the bucket does not exist"),
    ("PreconditionFailed|status code: 412", "the file was replaced meanwhile"),
    (
        "169.254.169.254",
        "no keys are set, neither in the URL nor in the environment",
    ),  # Without keys, the machine's own are asked for there.
    (r"<Code>(\w+)</Code>", "the store answers {}"),
    (r"status code: (\d+ [\w ]+)", "the store answers {}"),
    (r"kind: Timeout\b", "the store takes too long"),
    (r"kind: (?:Connect|Request)\b", "the store cannot be reached"),
    ("^Encountered object with invalid path", "an object there has a name that is no path"),
    ("incorrectly configured region", "the bucket lies in another region"),
)


class ObjectStoreBackend(Backend):
    """Objects of one bucket, below a prefix.

    Raises:
        ValueError: an option is not the store's.
    """

    def __init__(self, scheme: str, bucket: str, prefix: str, options: Mapping[str, str]) -> None:
        config = dict(options)
        for name, value in config.items():
            if "endpoint" in name and not re.match("https?://", value):
                raise ValueError(f"{name} {value!r}, expected one that begins with https:// or http://")
        timeouts = {name: config.pop(name, default) for name, default in TIMEOUTS.items()}
        if scheme == "s3":
            # S3 copies "unless it exists" only as a multipart upload.
            config.setdefault("copy_if_not_exists", "multipart")

        def connect(timeouts: dict[str, str], retries: Any) -> Any:
            # Whoever names an endpoint without encryption, on the own machine or network, wants it.
            client: Any = {**timeouts, "allow_http": True}
            try:
                return STORES[scheme](
                    bucket, prefix=prefix or None, config=config, client_options=client, retry_config=retries
                )
            except BaseError as error:
                raise ValueError(str(error).partition("\n")[0]) from None

        self.store = connect(timeouts, RETRIES)
        self.store_for_checks = connect(CHECK_TIMEOUTS, {"max_retries": 0})
        self.is_known_to_exist = False
        self.is_clean = False

    def reader(self, path: str) -> BinaryIO:
        return _Reader(self, path).buffered()

    def put(self, path: str, file: BinaryIO, size: int, *, overwrite: bool) -> None:
        if size <= PART:
            obstore.put(self.store, path, file.read(), mode="overwrite" if overwrite else "create")
        elif overwrite:
            obstore.put(self.store, path, file, chunk_size=PART, max_concurrency=2)
        else:
            # Stores promise "unless it exists" for one request, and for a copy, but not for an upload in parts.
            self._remove_abandoned()
            partial = new_partial()
            try:
                self.put(partial, file, size, overwrite=True)
                obstore.copy(self.store, partial, path, overwrite=False)
            finally:
                with suppress(BaseError):
                    obstore.delete(self.store, [partial])

    def move(self, source: str, target: str, *, overwrite: bool) -> None:
        self.copy(source, target, overwrite=overwrite)
        if source != target:
            self.remove_all([source])

    def copy(self, source: str, target: str, *, overwrite: bool) -> None:
        if source == target and overwrite:
            self.stat(source)
            return
        with self.errors(source, target):
            obstore.copy(self.store, source, target, overwrite=overwrite)

    def remove(self, path: str) -> None:
        self.stat(path)
        self.remove_all([path])

    def remove_all(self, paths: Iterable[str]) -> int:
        remaining, count = iter(paths), 0
        while batch := list(islice(remaining, BATCH)):
            with self.errors(batch[0]):
                obstore.delete(self.store, batch)
            count += len(batch)
        return count

    def stat(self, path: str) -> Entry:
        with self.errors(path):
            return _entry(obstore.head(self.store, path))

    def walk(self, prefix: str, *, recursive: bool) -> Iterator[Entry]:
        with self.errors(prefix or "."):
            if recursive:
                chunks: Any = obstore.list(self.store, prefix or None, chunk_size=BATCH)
            else:
                chunks = [obstore.list_with_delimiter(self.store, prefix or None)["objects"]]
            for found, following in pairwise(chain(chain.from_iterable(chunks), [None])):
                path = found["path"]
                # Consoles make an empty object for a folder, which is no file.
                may_be_folder = path == prefix or (following and following["path"].startswith(f"{path}/"))
                if found["size"] == 0 and may_be_folder and not self.exists(path):
                    continue
                if not path.startswith(f"{PARTIAL}/") and not FORBIDDEN.search(path):
                    yield _entry(found)

    def check(self) -> None:
        self._find_bucket(".")

    def url(self, path: str, expires: timedelta) -> str:
        with self.errors(path):
            return str(obstore.sign(self.store, "GET", path, expires))

    @contextmanager
    def errors(self, path: str, target: str | None = None) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, NotFoundError) as error:
            # The answer to HEAD has no text that would say whether the file or its bucket is missing.
            if not self.is_known_to_exist or "NoSuchBucket" in str(error):
                self._find_bucket(path)
            raise NotFound(f"{path}: no such file") from None
        except AlreadyExistsError:
            raise AlreadyExists(f"{target or path}: exists already") from None
        except (OSError, BaseError) as error:
            raise _translate(path, error) from None

    def _find_bucket(self, path: str) -> None:
        try:
            next(iter(obstore.list(self.store_for_checks, chunk_size=1)), None)
        except (OSError, BaseError) as error:
            # Somebody else's object there may have a name that is no path; the bucket is there all the same.
            if "invalid path" not in str(error):
                raise _translate(path, error) from None
        self.is_known_to_exist = True

    def _remove_abandoned(self) -> None:
        if not self.is_clean:
            before = datetime.now(UTC) - ABANDONED
            for found in chain.from_iterable(obstore.list(self.store, PARTIAL, chunk_size=BATCH)):
                if found["last_modified"] < before and is_partial(found["path"]):
                    obstore.delete(self.store, found["path"])
            self.is_clean = True  # Once a process is enough.


class _Reader(RemoteFile):
    """One answer, read as it comes. After a seek, another one is asked for the rest of the same version."""

    def __init__(self, backend: ObjectStoreBackend, path: str) -> None:
        self.backend, self.path = backend, path
        with backend.errors(path):
            answer = obstore.get(backend.store, path)
        super().__init__(answer.meta["size"])
        self.etag = answer.meta["e_tag"]
        self.chunks = iter(answer.stream(min_chunk_size=CHUNK))
        self.rest, self.rest_position = memoryview(b""), 0

    def fetch(self, count: int) -> bytes:
        with self.backend.errors(self.path):
            if self.position != self.rest_position:
                options: Any = {"range": {"offset": self.position}, "if_match": self.etag}
                self.chunks = iter(obstore.get(self.backend.store, self.path, options=options).stream(CHUNK))
                self.rest, self.rest_position = memoryview(b""), self.position
            self.rest = self.rest or memoryview(next(self.chunks))
        data = self.rest[:count]
        self.rest, self.rest_position = self.rest[count:], self.rest_position + len(data)
        return bytes(data)


def _entry(meta: Any) -> Entry:
    return Entry(meta["path"], meta["size"], meta["last_modified"], (meta["e_tag"] or "").strip('"'))


def _translate(path: str, error: Exception) -> StorageError:
    text = str(error)
    kind = PermissionDenied if re.search("status code: 40[13]", text) else StorageError
    for pattern, reason in REASONS:
        if found := re.search(pattern, text):
            return kind(f"{path}: {reason.format(*found.groups())}")
    known = isinstance(error, OSError) and error.strerror
    return kind(f"{path}: {known or f'the store fails: {type(error).__name__}'}")
