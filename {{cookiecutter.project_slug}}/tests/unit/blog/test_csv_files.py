"""What is read from CSV files of posts, and what is refused."""

import io

import pytest

from app.blog import csv_files
from app.blog.csv_files import RowError, UnusableFile, read_report, read_rows, write_report

QUOTES = "A text with a comma or a line break in it needs quotes around it."


def read(data: bytes) -> list[tuple[int, dict[str, str]]]:
    return list(read_rows(io.BytesIO(data)))


@pytest.mark.parametrize(
    "data",
    [
        "title,body\nÄ,ö",
        "title,body\nÄ,ö\n",
        "title,body\r\nÄ,ö\r\n\r\n",
        'title,"body"\n"Ä","ö"\n\n\n',
        "body,title\nö,Ä\n",
        "\ufefftitle,body\nÄ,ö\n",
        '\ufeff"body",title\r\nö,Ä\r\n',
    ],
)
def test_a_row_is_read_however_the_file_was_written(data: str) -> None:
    assert read(data.encode()) == [(2, {"title": "Ä", "body": "ö"})]


def test_texts_stay_as_they_are() -> None:
    texts = [' "quoted", ', "two\nlines", "two\r\nlines", "=1+1", "\ufeffmark", "a\u2028b\x85c\x0bd", "😀", "\ttab"]
    for text in texts:
        quoted = text.replace('"', '""')
        assert read(f'title,body\n"{quoted}",x\n'.encode()) == [(2, {"title": text, "body": "x"})]


def test_rows_are_counted_as_spreadsheets_do() -> None:
    numbers = [number for number, _ in read(b'title,body\n\n"1\n\n\n",a\n\n\n2,b\n')]
    assert numbers == [3, 6]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "This file is empty."),
        (b"\xef\xbb\xbf", "This file is empty."),
        (b"title,body", "This file holds no posts."),
        (b"title,body\n\n\n", "This file holds no posts."),
        (b"\n\r\n", "This file is empty."),
        (b'"title\n",body\n', "found title , body."),
        (b"title\n1\n", "with a comma between them; found title."),
        (b"title;body\n1;2\n", "with a comma between them; found title;body."),
        (b"title,title\n1,2\n", "found title, title."),
        (b"title,body,\n1,2,\n", "found title, body,."),
        (b"title,body\n1,a\n2,b,c\n", f"Row 3 should have 2 columns and has 3. {QUOTES}"),
        (b"title,body\n1\n", f"Row 2 should have 2 columns and has 1. {QUOTES}"),
        (b'title,body\n1,a\n2,"b\n3,c\n', "Row 3 cannot be read: a quote is missing"),
        (b'title,body\n"1"x,a\n', "Row 2 cannot be read: a quote is missing or in the wrong place"),
        (b"title,body\n1," + b"x" * 200_000, "Row 2 cannot be read: .* or a text is far too long."),
        (b"title,body\n1,a\n\n2,\xe4\n", "Line 4 is not UTF-8 text. Save the file as CSV in UTF-8."),
        ("title,body\n1,a\n".encode("utf-16"), "Line 1 is not UTF-8 text."),
        (b"title,body\n1,a\n2,\0\n", "Line 3 holds a NUL character, so this is not a CSV file."),
        (b"title,body\n1,a\r2,b\r", "Row 2 cannot be read"),
    ],
)
def test_a_file_that_is_none_of_posts_is_refused_with_one_line(data: bytes, reason: str) -> None:
    with pytest.raises(UnusableFile, match=reason) as error:
        read(data)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 300


def test_so_is_one_with_too_many_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    assert csv_files.MOST_ROWS == 10_000
    monkeypatch.setattr(csv_files, "MOST_ROWS", 3)
    assert len(read(b"title,body\n\n" + b"1,a\n" * 3)) == 3
    with pytest.raises(UnusableFile, match="at most 3 posts are taken at once"):
        read(b"title,body\n" + b"1,a\n" * 4)


def test_spreadsheets_take_nothing_in_a_report_for_a_formula() -> None:
    stream = io.BytesIO()
    found = ["=1+1", "+1", "-1", "@x", "\t=1", "\r=1", "'=1", "1=1", ""]
    write_report(stream, [RowError(2, "title", "Too long.", text) for text in found])
    stream.seek(0)
    protected = ["'=1+1", "'+1", "'-1", "'@x", "'\t=1", "'\r=1", "'=1", "1=1", ""]
    errors = list(read_report(stream))
    assert [error.found for error in errors] == protected
    assert str(errors[0]) == "row 2: title: Too long."
    assert stream.getvalue().startswith(b"\xef\xbb\xbfrow,column,message,found\r\n")
