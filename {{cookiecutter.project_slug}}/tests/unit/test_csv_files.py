"""Which CSV files are read, what is said of the others, and what is written."""

import io

import pytest

from app.csv_files import read_rows, write_rows

COLUMNS = ("title", "body")
HEADER = "The first row must be title,body, the names of the columns. Found: "
QUOTES = "A text with a comma or a line break in it needs quotes around it."


def read(data: bytes, most: int = 100) -> list[tuple[int, dict[str, str]]]:
    return list(read_rows(io.BytesIO(data), COLUMNS, most))


def written(*rows: tuple[str, str]) -> bytes:
    stream = io.BytesIO()
    write_rows(stream, COLUMNS, rows)
    return stream.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        "title,body\nÄ,ö",
        "title,body\r\nÄ,ö\r\n\r\n",
        'title,"body"\n"Ä","ö"\n\n\n',
        "body,title\rö,Ä\r",
        "\ufefftitle,body\nÄ,ö\n",
        '\ufeff"body",title\r\nö,Ä\r\n',
    ],
)
def test_a_row_is_read_however_the_file_was_written(data: str) -> None:
    assert read(data.encode()) == [(2, {"title": "Ä", "body": "ö"})]


def test_rows_are_counted_as_spreadsheets_do() -> None:
    numbers = [number for number, _ in read(b'title,body\n\n"1\n\n\n",a\n\n\n2,b\n')]
    assert numbers == [3, 6]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", f"{HEADER}nothing."),
        (b'"title\n",body\n', f"{HEADER}title , body."),
        (b"title;body\n1;2\n", f"{HEADER}title;body."),
        (b"title,title\n1,2\n", f"{HEADER}title, title."),
        (b"title,body,\n1,2,\n", f"{HEADER}title, body,."),
        (b"title,body\n\n\n", "This file has no rows below the header."),
        (b"title,body\n1,a\n2,b,c\n", f"Row 3 should have 2 columns, but it has 3. {QUOTES}"),
        (b"title,body\n1\n", f"Row 2 should have 2 columns, but it has 1. {QUOTES}"),
        (b'title,body\n1,a\n2,"b\n3,c\n', "Row 3, or one after it, cannot be read: a quote is missing"),
        (b'title,body\n"1"x,a\n', "Row 2, or one after it, cannot be read: a quote is missing or wrong"),
        (b"title,body\n1," + b"x" * 200_000, "Row 2, or one after it, cannot be read: .* or a text is too long."),
        (b"title,body\n1,a\n\n2,\xe4\n", "This file is not text in UTF-8. Save it as CSV in UTF-8."),
        ("title,body\n1,a\n".encode("utf-16"), "This file is not text in UTF-8."),
        (b"title,body\n1,a\n2,\0\n", "Row 3 is not text."),
        (b"title,body\n" + b"1,a\n" * 101, "This file has too many rows: it may have 100 below the header."),
    ],
)
def test_another_file_is_refused_with_one_line(data: bytes, reason: str) -> None:
    with pytest.raises(match=reason) as error:
        read(data)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 300


@pytest.mark.parametrize(
    "text",
    [
        *("=1+1", "+1", "-1", "@x", "\t=1", "\r=1", "\n=1", "\uff1d1", "'=1", "''@x"),
        *("'tis", "'", "1=1", "", ' "quoted", ', "two\r\nlines\n", "\ufeffmark", "a\u2028b\x85c\x0bd", "😀"),
    ],
)
def test_spreadsheets_take_no_text_for_a_formula_and_it_is_read_back_as_it_was(text: str) -> None:
    data = written((text, "x"))
    assert read(data) == [(2, {"title": text, "body": "x"})]
    cell = data.decode("utf-8-sig").partition("\r\n")[2].strip('"')
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d"))


def test_excel_is_told_the_encoding() -> None:
    assert written(("1", "a,b")) == b'\xef\xbb\xbftitle,body\r\n1,"a,b"\r\n'
