"""Pictures whose decoding would cost far more than their size."""

import io
import struct
import zlib
from pathlib import Path

import pytest
from PIL import EpsImagePlugin, GifImagePlugin, Image, ImageCms, PngImagePlugin, TiffImagePlugin

from app.accounts import pictures
from app.accounts.pictures import MOST_SCANS, TOO_MANY_PIXELS, UNREADABLE, UnusablePicture, process, small_picture


def encoded(kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (64, 32), "red").save(file, kind, **options)
    return file.getvalue()


def claiming(width: int, height: int) -> bytes:
    """A small PNG whose header says that it is larger."""
    data = bytearray(encoded("PNG"))
    data[16:24] = struct.pack(">II", width, height)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


def refusal(data: bytes) -> str:
    with pytest.raises(UnusablePicture) as raised:
        process("check", io.BytesIO(data))
    return str(raised.value)


def stop(*_arguments: object) -> None:
    """Stands where no test may get to; unlike other exceptions, this one is never mistaken for a decoder's."""
    raise SystemExit


def test_a_picture_of_a_thousand_scans_is_refused_by_its_header() -> None:
    data = encoded("JPEG", progressive=True)
    last = data[data.rindex(b"\xff\xda") : -2]
    assert process("check", io.BytesIO(data)) == b"JPEG"
    assert "too many scans" in refusal(data[:-2] + last * MOST_SCANS + data[-2:])


@pytest.mark.parametrize("work", ["while True: pass", "bytearray(MEMORY)"], ids=["time", "memory"])
def test_a_picture_that_takes_too_much_is_given_up(work: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = (
        Path(pictures.__file__).read_text().replace("    check(stream)\n", f"    {work}\n").replace(": 10}", ": 1}")
    )
    (tmp_path / "pictures.py").write_text(program)
    monkeypatch.setattr(pictures, "__file__", str(tmp_path / "pictures.py"))
    with pytest.raises(UnusablePicture, match=UNREADABLE):
        small_picture(io.BytesIO(encoded("PNG")))


def test_decoders_of_other_kinds_never_see_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    files = [encoded(kind) for kind in ("GIF", "EPS", "TIFF")]
    for decoder in (GifImagePlugin.GifImageFile, EpsImagePlugin.EpsImageFile, TiffImagePlugin.TiffImageFile):
        monkeypatch.setattr(decoder, "_open", stop)
    for data in files:
        assert refusal(data) == UNREADABLE
        with pytest.raises(SystemExit):
            Image.open(io.BytesIO(data))


@pytest.mark.parametrize("size", [(12_000_001, 1), (4900, 4900), (30_000, 30_000), (2**31 - 1, 2**31 - 1)])
def test_a_few_bytes_that_claim_many_pixels_are_refused_without_loading_them(
    monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", stop)
    assert refusal(claiming(*size)) == TOO_MANY_PIXELS
    assert process("check", io.BytesIO(claiming(12_000_000, 1))) == b"PNG"


def test_text_that_unfolds_to_fill_the_memory_is_refused() -> None:
    bomb = PngImagePlugin.PngInfo()
    bomb.add_text("Comment", "\0" * (2 << 20), zip=True)
    assert refusal(encoded("PNG", pnginfo=bomb)) == UNREADABLE


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_picture_looks_as_its_colour_profile_says(kind: str) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    # What it calls red is green, and the other way round.
    exchanged = profile.replace(b"rXYZ", b"????").replace(b"gXYZ", b"rXYZ").replace(b"????", b"gXYZ")
    for given, (red, green) in ((profile, (255, 0)), (exchanged, (0, 255)), (exchanged[:200], (255, 0))):
        small = Image.open(io.BytesIO(process("shrink", io.BytesIO(encoded(kind, icc_profile=given)))))
        found = small.convert("RGB").getpixel((16, 16))
        assert isinstance(found, tuple)
        assert abs(found[0] - red) + abs(found[1] - green) < 20
        assert "icc_profile" not in small.info
