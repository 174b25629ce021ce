"""Whatever is done to a storage in whatever order: it holds what a dictionary would."""

import re
from collections.abc import Callable
from typing import NoReturn

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from storage import AlreadyExists, NotFound, Storage, StorageError

# Few, so that operations meet; some are folders of others.
PATHS = st.sampled_from(["a", "a/b", "a/b/c", "a-", "d/e.txt", "d/f g", "ü/*", "ü"])
PREFIXES = st.sampled_from(["", "a", "a/b", "d", "ü", "none"])


class Model(RuleBasedStateMachine):
    """Does the same to a storage and to a dictionary."""

    def __init__(self, storage: Storage, *, has_folders: bool) -> None:
        super().__init__()
        self.storage, self.has_folders = storage, has_folders
        self.files: dict[str, bytes] = {}

    @rule(path=PATHS, data=st.binary(max_size=20), overwrite=st.booleans())
    def write(self, path: str, data: bytes, overwrite: bool) -> None:
        if self.expect(path, overwrite, lambda: self.storage.write(path, data, overwrite=overwrite)):
            self.files[path] = data

    @rule(path=PATHS, parts=st.lists(st.binary(max_size=20), max_size=3), overwrite=st.booleans(), fail=st.booleans())
    def stream(self, path: str, parts: list[bytes], overwrite: bool, fail: bool) -> None:
        def stream() -> None:
            with self.storage.writer(path, overwrite=overwrite) as stream:
                stream.writelines(parts)
                if fail:
                    stop()

        if fail:
            with pytest.raises((KeyboardInterrupt, StorageError)):
                stream()
        elif self.expect(path, overwrite, stream):
            self.files[path] = b"".join(parts)

    @rule(source=PATHS, goal=PATHS, overwrite=st.booleans(), name=st.sampled_from(["move", "copy"]))
    def place(self, source: str, goal: str, overwrite: bool, name: str) -> None:
        def call() -> None:
            getattr(self.storage, name)(source, goal, overwrite=overwrite)

        if source not in self.files:
            with pytest.raises(NotFound, match=f"^{re.escape(source)}: no such file$"):
                call()
        elif self.expect(goal, overwrite, call):
            data = self.files.pop(source) if name == "move" else self.files[source]
            self.files[goal] = data

    @rule(path=PATHS)
    def remove(self, path: str) -> None:
        if self.files.pop(path, None) is None:
            with pytest.raises(NotFound):
                self.storage.remove(path)
        else:
            self.storage.remove(path)

    @rule(prefix=PREFIXES)
    def look_below(self, prefix: str) -> None:
        assert [entry.path for entry in self.storage.list(prefix)] == self.below(prefix)

    @rule(path=PATHS)
    def look(self, path: str) -> None:
        assert self.storage.exists(path) is (path in self.files)
        if path in self.files:
            assert self.storage.stat(path).size == len(self.files[path])
        else:
            with pytest.raises(NotFound):
                self.storage.read(path)

    @invariant()
    def holds_the_same(self) -> None:
        assert {entry.path: self.storage.read(entry.path) for entry in self.storage.list()} == self.files

    def below(self, prefix: str) -> list[str]:
        return sorted(path for path in self.files if not prefix or path.startswith(f"{prefix}/"))

    def expect(self, path: str, overwrite: bool, call: Callable[[], None]) -> bool:
        """Do what puts a file at `path`; returns whether it may."""
        if path in self.files and not overwrite:
            with pytest.raises(AlreadyExists, match=f"^{re.escape(path)}: exists already$"):
                call()
            return False
        if self.has_folders and (self.below(path) or any(path.startswith(f"{file}/") for file in self.files)):
            with pytest.raises(
                StorageError,
                match=r"(a folder, expected a file|a file stands where a folder is needed|exists already)$",
            ):
                call()
            return False
        call()
        return True


def stop() -> NoReturn:
    raise KeyboardInterrupt


def test_a_storage_does_what_a_dictionary_would(scheme: str, new_url: Callable[[str], str]) -> None:
    class OfScheme(Model):
        def __init__(self) -> None:
            super().__init__(Storage(new_url(scheme)), has_folders=scheme == "file")

    examples = 6 if scheme == "s3" else 20
    run_state_machine_as_test(
        OfScheme,
        settings=settings(
            max_examples=examples, stateful_step_count=25, deadline=None, database=None, derandomize=True
        ),
    )
