"""Which files are accepted as pictures, and how they are made small."""

import io
import random
import struct
import zlib

import pytest
from PIL import EpsImagePlugin, ExifTags, GifImagePlugin, Image, PngImagePlugin, TiffImagePlugin

from app.accounts.pictures import FORMATS, SIDE, TOO_MANY_PIXELS, UnusablePicture, check_picture, small_picture

Point = tuple[int, int]
RED, GREEN, BLUE = (200, 30, 30), (30, 180, 30), (30, 30, 200)
NO_PICTURE = "This is not a JPEG, PNG or WebP picture, or it is damaged."
PLACE = b"59.3293N-18.0686E"


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def halves(size: Point = (64, 32)) -> Image.Image:
    """Red on the left, blue on the right."""
    image = Image.new("RGB", size, RED)
    image.paste(BLUE, (size[0] // 2, 0, *size))
    return image


def camera(orientation: int) -> bytes:
    """What a camera writes beside the picture."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    exif[ExifTags.Base.ImageDescription] = PLACE.decode()
    exif[ExifTags.IFD.GPSInfo] = {1: "N", 2: (59.0, 19.0, 45.5)}
    return exif.tobytes()


def png(size: Point, *chunks: tuple[bytes, bytes], depth: int = 8, colour: int = 2, pixels: bytes = b"") -> bytes:
    """A PNG made by hand, of any claims."""
    header = struct.pack(">IIBBBBB", *size, depth, colour, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(pixels)), (b"IEND", b"")]
    written = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(written)


def refusal(data: bytes, media_type: str = "image/png") -> str:
    with pytest.raises(UnusablePicture) as raised:
        check_picture(io.BytesIO(data), media_type)
    return str(raised.value)


def stop(*_arguments: object) -> None:
    """Stands where no test may get to; unlike other exceptions, this one is never mistaken for a decoder's."""
    raise SystemExit


def shrunk(data: bytes, media_type: str) -> Image.Image:
    """The small picture of a file that is taken, read back."""
    check_picture(io.BytesIO(data), media_type)
    image = Image.open(io.BytesIO(small_picture(io.BytesIO(data))))
    assert image.format == "WEBP"
    image.load()
    return image


def colour_at(image: Image.Image, x: float, y: float) -> tuple[int, ...]:
    """Which of the colours is there, roughly, whatever the compression did to it; `x` and `y` from 0 to 1."""
    found = image.convert("RGB").getpixel((int(x * (image.width - 1)), int(y * (image.height - 1))))
    assert isinstance(found, tuple)
    return min((RED, GREEN, BLUE), key=lambda colour: sum(abs(a - b) for a, b in zip(colour, found, strict=True)))


PICTURES = {kind: encoded(halves(), kind, exif=camera(1)) for kind in FORMATS}


@pytest.mark.parametrize("kind", FORMATS)
def test_a_whole_picture_is_taken_under_its_own_type_only(kind: str) -> None:
    for media_type in ("image/jpeg", "image/png", "image/webp", "image/gif", "text/html", ""):
        if media_type == FORMATS[kind]:
            check_picture(io.BytesIO(PICTURES[kind]), media_type)
        else:
            expected = f"This file says it is {media_type}, but it is a {kind} picture."
            assert refusal(PICTURES[kind], media_type) == expected


@pytest.mark.parametrize(
    "data",
    [
        b"\x00",
        b"This is a picture, believe me.",
        b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
        b"<!doctype html><script>alert(1)</script>",
        b"GIF89a/*\x00\x00\x00\x00\x00;*/=1;alert(1)//<script>alert(1)</script>",
        encoded(halves(), "GIF"),
        encoded(halves(), "BMP"),
        encoded(halves(), "TIFF"),
        b"<script>alert(1)</script>" + PICTURES["PNG"],
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    ],
    ids=["zero", "text", "SVG", "HTML", "GIF with script", "GIF", "BMP", "TIFF", "PNG behind HTML", "PostScript"],
)
@pytest.mark.parametrize("media_type", FORMATS.values())
def test_what_is_no_picture_of_the_three_kinds_is_refused(data: bytes, media_type: str) -> None:
    assert refusal(data, media_type) == NO_PICTURE


def test_decoders_of_other_kinds_never_see_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    files = [encoded(halves(), kind) for kind in ("GIF", "EPS", "TIFF")]
    for decoder in (GifImagePlugin.GifImageFile, EpsImagePlugin.EpsImageFile, TiffImagePlugin.TiffImageFile):
        monkeypatch.setattr(decoder, "_open", stop)
    for data in files:
        assert refusal(data) == NO_PICTURE
        with pytest.raises(SystemExit):
            Image.open(io.BytesIO(data))


def test_an_empty_file_is_called_empty() -> None:
    assert refusal(b"") == "This file is empty."


@pytest.mark.parametrize("kind", FORMATS)
def test_a_picture_that_ends_too_early_is_refused(kind: str) -> None:
    noise = encoded(Image.effect_noise((64, 64), 90).convert("RGB"), kind)
    for length in (12, len(noise) // 3, len(noise) * 9 // 10):
        assert refusal(noise[:length], FORMATS[kind]) == NO_PICTURE


@pytest.mark.parametrize(
    "size", [(12_000_001, 1), (4900, 4900), (10_000, 10_000), (30_000, 30_000), (2**31 - 1, 2**31 - 1)]
)
def test_a_few_bytes_that_claim_many_pixels_are_refused_without_loading_them(
    monkeypatch: pytest.MonkeyPatch, size: Point
) -> None:
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", stop)
    assert refusal(png(size)) == TOO_MANY_PIXELS
    with pytest.raises(SystemExit):
        check_picture(io.BytesIO(png((12_000_000, 1))), "image/png")


def test_text_that_unfolds_to_fill_the_memory_is_refused() -> None:
    bomb = b"Comment\x00\x00" + zlib.compress(bytes(2 << 20), 1)
    assert refusal(png((1, 1), (b"zTXt", bomb), pixels=bytes(4))) == NO_PICTURE


@pytest.mark.parametrize("start", [b"", *(data[:16] for data in PICTURES.values())], ids=["nothing", *FORMATS])
def test_random_bytes_are_refused(start: bytes) -> None:
    chance = random.Random(1)
    for _ in range(30):
        assert refusal(start + chance.randbytes(chance.randrange(200)))


@pytest.mark.parametrize("kind", FORMATS)
def test_a_damaged_picture_is_refused_or_made_small(kind: str) -> None:
    chance = random.Random(2)
    for _ in range(40):
        data = bytearray(PICTURES[kind])
        for _ in range(chance.randrange(1, 5)):
            data[chance.randrange(400) % len(data)] = chance.randrange(256)
        try:
            check_picture(io.BytesIO(data), FORMATS[kind])
        except UnusablePicture:
            continue
        assert small_picture(io.BytesIO(data)).startswith(b"RIFF")


@pytest.mark.parametrize(("kind", "mark", "offset"), [("WEBP", b"MM\x00*", 0), ("JPEG", b"\x01\x0e\x00\x02", 3)])
def test_damaged_notes_of_a_camera_do_not_matter(kind: str, mark: bytes, offset: int) -> None:
    data = bytearray(PICTURES[kind])
    data[data.index(mark) + offset] ^= 1
    check_picture(io.BytesIO(data), FORMATS[kind])
    assert small_picture(io.BytesIO(data)).startswith(b"RIFF")


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize(
    ("size", "side"),
    [((1, 1), 1), ((3000, 2), 2), ((100, 60), 60), ((700, 513), SIDE)],
)
def test_the_small_picture_is_square_and_at_most_so_large(kind: str, size: Point, side: int) -> None:
    assert shrunk(encoded(Image.new("RGB", size, RED), kind), FORMATS[kind]).size == (side, side)


def test_it_is_cut_from_the_middle() -> None:
    image = Image.new("RGB", (300, 100), RED)
    image.paste(BLUE, (100, 0, 200, 100))
    small = shrunk(encoded(image, "PNG"), "image/png")
    assert {colour_at(small, x, 0.5) for x in (0.02, 0.5, 0.98)} == {BLUE}


@pytest.mark.parametrize("kind", FORMATS)
def test_it_is_put_upright(kind: str) -> None:
    corners = {"top left": (0.1, 0.1), "top right": (0.9, 0.1), "bottom left": (0.1, 0.9), "bottom right": (0.9, 0.9)}
    image = Image.new("RGB", (64, 64), BLUE)
    image.paste(RED, (0, 0, 32, 32))
    image.paste(GREEN, (32, 0, 64, 32))
    found = {}
    for orientation in range(10):
        small = shrunk(encoded(image, kind, exif=camera(orientation)), FORMATS[kind])
        colours = {colour_at(small, *place): name for name, place in corners.items()}
        found[orientation] = (colours[RED], colours[GREEN])
    upright = ("top left", "top right")
    assert found == {
        0: upright,
        1: upright,
        2: ("top right", "top left"),
        3: ("bottom right", "bottom left"),
        4: ("bottom left", "bottom right"),
        5: ("top left", "bottom left"),
        6: ("top right", "bottom right"),
        7: ("bottom right", "top right"),
        8: ("bottom left", "top left"),
        9: upright,
    }


@pytest.mark.parametrize("kind", FORMATS)
def test_nothing_but_the_pixels_is_kept(kind: str) -> None:
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Comment", PLACE.decode())
    texts.add_itxt("XML:com.adobe.xmp", PLACE.decode())
    xmp = b"<x:xmpmeta>" + PLACE + b"</x:xmpmeta>"
    options: dict[str, dict[str, object]] = {
        "JPEG": {"comment": PLACE, "xmp": xmp},
        "PNG": {"pnginfo": texts},
        "WEBP": {"xmp": xmp},
    }
    data = encoded(halves(), kind, exif=camera(1), icc_profile=PLACE, **options[kind])
    assert data.count(PLACE) >= 2
    small = small_picture(io.BytesIO(data))
    assert PLACE not in small
    image = Image.open(io.BytesIO(small))
    image.load()
    assert not image.getexif()
    assert image.info.keys() <= {"loop", "background", "timestamp", "duration"}


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_what_is_transparent_stays_transparent(kind: str) -> None:
    image = halves().convert("RGBA")
    image.putalpha(Image.new("L", image.size, 0))
    image.paste((*GREEN, 255), (28, 0, 64, 32))
    small = shrunk(encoded(image, kind), FORMATS[kind])
    assert small.mode == "RGBA"
    alphas = small.getchannel("A")
    assert (alphas.getpixel((0, 16)), alphas.getpixel((31, 16))) == (0, 255)


def grey16() -> bytes:
    """Black on the left, half grey on the right, in 16 bits."""
    row = b"\x00" + struct.pack(">8H", *[300] * 4, *[0x8000] * 4)
    return png((8, 8), (b"tRNS", b"\x01\x02"), depth=16, colour=0, pixels=row * 8)


def test_sixteen_bits_of_grey_do_not_turn_white() -> None:
    small = shrunk(grey16(), "image/png").convert("L")
    left, right = small.getpixel((0, 4)), small.getpixel((7, 4))
    assert isinstance(left, int)
    assert isinstance(right, int)
    assert left < 20
    assert 110 < right < 146


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        *(("1", kind) for kind in FORMATS),
        *(("L", kind) for kind in FORMATS),
        ("LA", "PNG"),
        ("P", "PNG"),
        ("I;16", "PNG"),
        ("CMYK", "JPEG"),
    ],
)
@pytest.mark.parametrize("side", [1, 40])
def test_every_way_to_write_colours_is_taken(mode: str, kind: str, side: int) -> None:
    assert shrunk(encoded(Image.new(mode, (side, side)), kind), FORMATS[kind]).size == (side, side)


def test_a_palette_keeps_its_colours() -> None:
    small = shrunk(encoded(halves().quantize(4), "PNG"), "image/png")
    assert small.mode == "RGB"
    assert (colour_at(small, 0.1, 0.5), colour_at(small, 0.9, 0.5)) == (RED, BLUE)


@pytest.mark.parametrize(("kind", "media_type"), [("MPO", "image/jpeg"), ("WEBP", "image/webp"), ("PNG", "image/png")])
def test_of_several_pictures_in_one_file_the_first_is_taken(kind: str, media_type: str) -> None:
    other = Image.new("RGB", (64, 32), GREEN)
    small = shrunk(encoded(halves(), kind, save_all=True, append_images=[other]), media_type)
    assert (colour_at(small, 0.1, 0.5), colour_at(small, 0.9, 0.5)) == (RED, BLUE)
