"""Reading `.env`: what python-dotenv leaves out without a word is a line here."""

from pathlib import Path

import pytest

from config import ConfigError, load
from config.env_file import read_env_file


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / ".env"


def problems(path: Path, text: str) -> list[str]:
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_env_file(path)
    return [problem.removeprefix(f"{path}:") for problem in caught.value.problems]


def test_what_is_usual_in_such_files_is_read(path: Path) -> None:
    path.write_bytes(
        b"\xef\xbb\xbf# comment\r\n\r\nPLAIN=a b # comment\r\nexport EXPORTED = x\nEMPTY=\n"
        b'SINGLE=\'${HOME} "x"\'\nDOUBLE="two\nlines"\n  INDENTED=a=b'
    )
    assert read_env_file(path) == {
        "PLAIN": "a b",
        "EXPORTED": "x",
        "EMPTY": "",
        "SINGLE": '${HOME} "x"',
        "DOUBLE": "two\nlines",
        "INDENTED": "a=b",
    }


def test_no_file_has_no_variables(path: Path) -> None:
    assert read_env_file(path) == {}
    path.touch()
    assert read_env_file(path) == {}


def test_every_broken_line_is_named_with_its_number_and_never_with_a_value(path: Path) -> None:
    text = "GOOD=1\n\n# comment\nTOKEN=\"hunter2\nhunter2\nmy-key=hunter2\n=hunter2\nexport KEY = 'hunter2' hunter2\n"
    found = problems(path, text)
    assert found == [
        "4: TOKEN: found quotes that do not end, or something behind them; expected NAME=value",
        "5: this line: found no `=`; expected NAME=value",
        "6: this line: found a name with more than letters, digits and underscores; expected NAME=value",
        "7: this line: found no name and value; expected NAME=value",
        "8: KEY: found quotes that do not end, or something behind them; expected NAME=value",
    ]


def test_a_name_that_is_there_twice_is_refused(path: Path) -> None:
    assert problems(path, "A=1\nB=hunter2\n\n\nB=hunter3\nB=\n") == [
        "5: B: found a second time, first in line 2; keep one of them",
        "6: B: found a second time, first in line 2; keep one of them",
    ]


def test_a_file_that_is_no_text_is_one_line(path: Path) -> None:
    path.write_bytes(b"A=1\nB=\xff\n")
    with pytest.raises(ConfigError, match=f"^{path}: cannot be read: line 2 is not UTF-8$"):
        read_env_file(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(ConfigError, match=f"^{path}: cannot be read: "):
        read_env_file(path)


def test_settings_are_refused_with_these_lines(path: Path) -> None:
    path.write_text("PORT=8001\nPORT=8002\nSECRET_KEY\n")
    with pytest.raises(ConfigError) as caught:
        load({"APP_DIR": str(path.parent)})
    assert caught.value.problems == (
        f"{path}:2: PORT: found a second time, first in line 1; keep one of them",
        f"{path}:3: this line: found no `=`; expected NAME=value",
    )
