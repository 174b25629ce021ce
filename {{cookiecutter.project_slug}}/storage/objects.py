"""`s3://bucket/prefix`, `gs://…`, `az://…` and `memory://`: an object store, through obstore.

https://developmentseed.org/obstore/ names the options of each store: `endpoint`, `region`, keys. What is not given is
read from the environment's usual variables, such as AWS_ACCESS_KEY_ID.
"""

import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from itertools import chain
from typing import Any, BinaryIO, cast
from urllib.parse import unquote_plus, urlencode
from xml.etree import ElementTree as ET

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, InvalidPathError
from obstore.store import AzureStore, GCSStore, MemoryStore, S3Store

from storage.errors import AlreadyExists, NotFound, PermissionDenied, StorageError
from storage.paths import PARTIAL, Entry

STORES: dict[str, Any] = {"s3": S3Store, "gs": GCSStore, "az": AzureStore}
# A large file may take an hour, but a store that sends nothing for half a minute is given up.
TIMEOUTS = {"connect_timeout": "5s", "read_timeout": "30s", "timeout": "1h"}
# Health checks come every few seconds.
CHECK_TIMEOUTS = {"connect_timeout": "2s", "timeout": "5s"}
# Larger files that are read wait on the local disk, instead of in memory.
SPOOL = 6 << 20
# What is said for what obstore's errors hold. Their whole texts may show keys and signed addresses.
REASONS = {
    "169.254.169.254": "no keys are set, neither in the URL nor in the environment",
    "incorrectly configured region": "the bucket lies in another region",
    r"<Code>(\w+)</Code>": "the store answers {}",
    r"status code: (\d+ [\w ]+)": "the store answers {}",
    r"kind: (\w+)": "the store fails with {}",
}


class ObjectBackend:
    """Objects of one bucket, below a prefix.

    Raises:
        ValueError: the store does not know an option.
    """

    # The process that uses obstore. Its threads do not live on in a fork, where every call would wait for ever.
    process: int | None = None

    def __init__(self, scheme: str, bucket: str, prefix: str, options: Mapping[str, str]) -> None:
        self.scheme, self.bucket, self.prefix, self.options = scheme, bucket, prefix, dict(options)
        for name, value in options.items():
            if "endpoint" in name and not re.match("https?://", value):
                raise ValueError(f"{name} {value!r}, expected one that begins with https:// or http://")
        self.store = self._connect(prefix, self.options)
        self.store_for_checks = self._connect(prefix, self.options, for_checks=True)

    def read(self, path: str) -> bytes:
        with self._errors(path):
            return bytes(obstore.get(self.store, path).bytes())

    def reader(self, path: str) -> BinaryIO:
        with self._errors(path):
            chunks = obstore.get(self.store, path).stream()
            file = tempfile.SpooledTemporaryFile(SPOOL)  # noqa: SIM115  (the caller closes it)
            file.writelines(chunks)
            file.seek(0)
        return cast("BinaryIO", file)

    @contextmanager
    def writer(self, path: str, *, overwrite: bool) -> Iterator[BinaryIO]:
        with tempfile.TemporaryFile(buffering=0) as file:
            # The block may close the stream, as a TextIOWrapper does.
            with open(file.fileno(), "wb", closefd=False) as stream:
                yield stream
            file.seek(0)
            with self._errors(path):
                # Stores promise "unless it exists" for one request, not for an upload in parts.
                how: Any = {"max_concurrency": 4} if overwrite else {"mode": "create", "use_multipart": False}
                obstore.put(self.store, path, file, **how)

    def copy(self, source: str, target: str, *, overwrite: bool) -> None:
        if source == target and overwrite:
            self.stat(source)
            return
        with self._errors(source, target):
            obstore.copy(self.store, source, target, overwrite=overwrite)

    def move(self, source: str, target: str, *, overwrite: bool) -> None:
        self.copy(source, target, overwrite=overwrite)
        if source != target:
            with self._errors(source):
                obstore.delete(self.store, source)

    def remove(self, path: str) -> None:
        self.stat(path)
        with self._errors(path):
            obstore.delete(self.store, path)

    def stat(self, path: str) -> Entry:
        with self._errors(path):
            return _entry(obstore.head(self.store, path))

    def list(self, prefix: str) -> Iterator[Entry]:
        last = prefix
        with self._errors(prefix or "."):
            try:
                for found in chain.from_iterable(obstore.list(self.store, prefix or None, chunk_size=1000)):
                    last = found["path"]
                    if last != prefix:
                        yield _entry(found)
            except InvalidPathError:
                if self.scheme != "s3":
                    raise
                yield from self._list_any_keys(prefix, last)

    def check(self) -> None:
        with self._errors(f"{self.scheme}://{self.bucket}/{self.prefix}"):
            # A folder that is never there makes the shortest answer.
            next(iter(obstore.list(self.store_for_checks, PARTIAL)), None)

    def url(self, path: str, expires: timedelta) -> str | None:
        if self.scheme == "memory":
            return None
        with self._errors(path):
            return str(obstore.sign(self.store, "GET", path, expires))

    def _connect(self, prefix: str, options: dict[str, str], *, for_checks: bool = False) -> Any:
        if self.scheme == "memory":
            return MemoryStore()
        # S3 itself copies "unless it exists" only as an upload in parts.
        defaults = {"copy_if_not_exists": "multipart"} if self.scheme == "s3" else {}
        try:
            return STORES[self.scheme](
                self.bucket,
                prefix=prefix or None,
                config={**defaults, **options},
                # An endpoint without encryption is on this machine or network.
                client_options={**(CHECK_TIMEOUTS if for_checks else TIMEOUTS), "allow_http": True},
                retry_config={"max_retries": 0 if for_checks else 3, "retry_timeout": timedelta(seconds=60)},
            )
        except BaseError as error:
            raise ValueError(str(error).partition("\n")[0]) from None

    def _list_any_keys(self, prefix: str, last: str) -> Iterator[Entry]:
        """The rest of a listing, after `last`, as S3 itself answers it.

        obstore ends a listing at the first key that is no path, such as `a//b` or `../x`. But it signs any address,
        also one that asks for a listing: it adds `/x`, and S3 ignores parameters that begin with `x-`.
        """
        root = f"{self.prefix}/" if self.prefix else ""
        address = obstore.sign(self._connect("", self.options), "GET", "x", timedelta(hours=1)).partition("/x?")[0]
        options = {name: value for name, value in self.options.items() if not re.search("endpoint|virtual", name)}
        options["virtual_hosted_style_request"] = "true"
        query = {"list-type": "2", "encoding-type": "url", "prefix": f"{root}{prefix}/" if prefix else root}
        rest: str | None = ""
        while rest is not None:
            query |= {"continuation-token": rest} if rest else {"start-after": root + last}
            options["endpoint"] = f"{address}?{urlencode(query)}&x-rest="
            answer = obstore.get(self._connect("", options), "x")
            page = ET.fromstring(bytes(answer.bytes()))  # noqa: S314  (the store's own XML)
            rest = page.findtext("{*}NextContinuationToken")
            for found in page.iterfind("{*}Contents"):
                fields = {field.tag.rpartition("}")[2]: field.text or "" for field in found}
                key, modified = unquote_plus(fields["Key"]), datetime.fromisoformat(fields["LastModified"])
                if not key.endswith("/"):
                    yield Entry(key.removeprefix(root), int(fields["Size"]), modified, fields["ETag"].strip('"'))

    @contextmanager
    def _errors(self, path: str, target: str | None = None) -> Iterator[None]:
        ObjectBackend.process = ObjectBackend.process or os.getpid()
        if ObjectBackend.process != os.getpid():
            raise StorageError(f"{path}: this process was forked from one that had used an object store")
        try:
            yield
        except AlreadyExistsError:
            raise AlreadyExists(f"{target or path}: exists already") from None
        except (OSError, BaseError) as error:
            raise _translate(path, error) from None


def _entry(meta: Any) -> Entry:
    return Entry(meta["path"], meta["size"], meta["last_modified"], (meta["e_tag"] or "").strip('"'))


def _translate(path: str, error: Exception) -> StorageError:
    text = str(error)
    # When the store names another code, it is not the file that is missing, but the bucket.
    if isinstance(error, FileNotFoundError) and not re.search("<Code>(?!NoSuchKey|BlobNotFound)", text):
        return NotFound(f"{path}: no such file")
    kind = PermissionDenied if re.search("status code: 40[13]", text) else StorageError
    for pattern, reason in REASONS.items():
        if found := re.search(pattern, text):
            return kind(f"{path}: {reason.format(*found.groups())}")
    known = isinstance(error, OSError) and error.strerror
    return kind(f"{path}: {known or f'the store fails with {type(error).__name__}'}")
