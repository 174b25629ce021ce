"""Which files are accepted as pictures, and how they are made small."""

import io
import random
import struct
from contextlib import suppress

import pytest
from PIL import ExifTags, Image, PngImagePlugin

from app.accounts.pictures import FORMATS, SIDE, UnusablePicture, check_picture, process

Point = tuple[int, int]
RED, GREEN, BLUE = (200, 30, 30), (30, 180, 30), (30, 30, 200)
NO_PICTURE = "This is not a JPEG, PNG or WebP picture, or it is damaged."
PLACE = b"59.3293N-18.0686E"


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def halves() -> Image.Image:
    """Red on the left, blue on the right."""
    image = Image.new("RGB", (64, 32), RED)
    image.paste(BLUE, (32, 0, 64, 32))
    return image


def camera(orientation: int) -> bytes:
    """What a camera writes beside the picture."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    exif[ExifTags.Base.ImageDescription] = PLACE.decode()
    exif[ExifTags.IFD.GPSInfo] = {1: "N", 2: (59.0, 19.0, 45.5)}
    return exif.tobytes()


def refusal(data: bytes, step: str = "check") -> str:
    with pytest.raises(UnusablePicture) as raised:
        process(step, io.BytesIO(data))
    return str(raised.value)


def shrunk(data: bytes) -> Image.Image:
    """The small picture of a file, read back."""
    image = Image.open(io.BytesIO(process("shrink", io.BytesIO(data))))
    assert image.format == "WEBP"
    image.load()
    return image


def colour_at(image: Image.Image, x: float, y: float = 0.5) -> tuple[int, ...]:
    """Which of the colours is there, roughly, whatever the compression did to it; `x` and `y` from 0 to 1."""
    found = image.convert("RGB").getpixel((int(x * (image.width - 1)), int(y * (image.height - 1))))
    assert isinstance(found, tuple)
    return min((RED, GREEN, BLUE), key=lambda colour: sum(abs(a - b) for a, b in zip(colour, found, strict=True)))


PICTURES = {kind: encoded(halves(), kind, exif=camera(1)) for kind in FORMATS}


@pytest.mark.parametrize("kind", FORMATS)
def test_a_picture_is_accepted_under_its_own_type_only(kind: str) -> None:
    check_picture(io.BytesIO(PICTURES[kind]), FORMATS[kind])
    with pytest.raises(UnusablePicture, match=f"This file says it is text/html, but it is a {kind} picture."):
        check_picture(io.BytesIO(PICTURES[kind]), "text/html")


@pytest.mark.parametrize("kind", FORMATS)
def test_half_a_picture_is_not_made_small(kind: str) -> None:
    noise = encoded(Image.effect_noise((64, 64), 90).convert("RGB"), kind)
    for length in (12, len(noise) // 3, len(noise) * 9 // 10):
        assert refusal(noise[:length], "shrink") == NO_PICTURE


@pytest.mark.parametrize(
    "data",
    [
        b"This is a picture, believe me.",
        b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
        encoded(halves(), "GIF"),
        b"<script>alert(1)</script>" + PICTURES["PNG"],
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    ],
    ids=["text", "SVG", "GIF", "PNG behind HTML", "PostScript"],
)
def test_files_of_other_kinds_are_refused_whatever_they_say(data: bytes) -> None:
    assert refusal(data) == NO_PICTURE


@pytest.mark.parametrize("kind", FORMATS)
def test_a_damaged_picture_is_refused_or_made_small(kind: str) -> None:
    chance = random.Random(2)
    for _ in range(40):
        data = bytearray(PICTURES[kind])
        for _ in range(chance.randrange(1, 5)):
            data[chance.randrange(400) % len(data)] = chance.randrange(256)
        with suppress(UnusablePicture):
            assert process("shrink", io.BytesIO(data)).startswith(b"RIFF")


@pytest.mark.parametrize(("kind", "mark", "offset"), [("WEBP", b"MM\x00*", 0), ("JPEG", b"\x01\x0e\x00\x02", 3)])
def test_damaged_notes_of_a_camera_do_not_matter(kind: str, mark: bytes, offset: int) -> None:
    data = bytearray(PICTURES[kind])
    data[data.index(mark) + offset] = offset
    assert shrunk(bytes(data)).size == (32, 32)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize(("size", "side"), [((1, 1), 1), ((3000, 2), 2), ((100, 60), 60), ((700, 513), SIDE)])
def test_the_small_picture_is_square_and_at_most_so_large(kind: str, size: Point, side: int) -> None:
    assert shrunk(encoded(Image.new("RGB", size, RED), kind)).size == (side, side)


def test_it_is_cut_from_the_middle() -> None:
    image = Image.new("RGB", (300, 100), RED)
    image.paste(BLUE, (100, 0, 200, 100))
    small = shrunk(encoded(image, "PNG"))
    assert {colour_at(small, x) for x in (0.02, 0.5, 0.98)} == {BLUE}


@pytest.mark.parametrize("kind", FORMATS)
def test_it_is_put_upright(kind: str) -> None:
    corners = {"top left": (0.1, 0.1), "top right": (0.9, 0.1), "bottom left": (0.1, 0.9), "bottom right": (0.9, 0.9)}
    image = Image.new("RGB", (64, 64), BLUE)
    image.paste(RED, (0, 0, 32, 32))
    image.paste(GREEN, (32, 0, 64, 32))
    found = []
    for orientation in range(10):
        small = shrunk(encoded(image, kind, exif=camera(orientation)))
        colours = {colour_at(small, *place): name for name, place in corners.items()}
        found.append((colours[RED], colours[GREEN]))
    upright = ("top left", "top right")
    turned = [("top right", "top left"), ("bottom right", "bottom left"), ("bottom left", "bottom right")]
    turned += [("top left", "bottom left"), ("top right", "bottom right")]
    turned += [("bottom right", "top right"), ("bottom left", "top left")]
    assert found == [upright, upright, *turned, upright]


@pytest.mark.parametrize("kind", FORMATS)
def test_nothing_but_the_pixels_is_kept(kind: str) -> None:
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Comment", PLACE.decode())
    texts.add_itxt("XML:com.adobe.xmp", PLACE.decode())
    xmp = b"<x:xmpmeta>" + PLACE + b"</x:xmpmeta>"
    options: dict[str, object] = {"comment": PLACE, "xmp": xmp, "pnginfo": texts}
    data = encoded(halves(), kind, exif=camera(1), icc_profile=PLACE, **options)
    assert data.count(PLACE) >= 2
    small = process("shrink", io.BytesIO(data))
    assert PLACE not in small
    image = Image.open(io.BytesIO(small))
    image.load()
    assert not image.getexif()
    assert image.info.keys() <= {"loop", "background", "timestamp", "duration"}


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_transparent_places_stay_transparent(kind: str) -> None:
    image = halves().convert("RGBA")
    image.putalpha(Image.new("L", image.size, 0))
    image.paste((*GREEN, 255), (28, 0, 64, 32))
    small = shrunk(encoded(image, kind))
    assert small.mode == "RGBA"
    alphas = small.getchannel("A")
    assert (alphas.getpixel((0, 16)), alphas.getpixel((31, 16))) == (0, 255)


def test_sixteen_bits_of_grey_do_not_turn_white() -> None:
    row = struct.pack("<8H", *[300] * 4, *[0x8000] * 4)
    grey = encoded(Image.frombytes("I;16", (8, 8), row * 8), "PNG", transparency=0x102)
    left, right = (shrunk(grey).convert("L").getpixel((x, 4)) for x in (0, 7))
    assert isinstance(left, int)
    assert isinstance(right, int)
    assert left < 20
    assert 110 < right < 146


@pytest.mark.parametrize(
    ("mode", "kind"),
    [("1", "PNG"), ("1", "WEBP"), ("L", "JPEG"), ("LA", "PNG"), ("P", "PNG"), ("I;16", "PNG"), ("CMYK", "JPEG")],
)
def test_every_way_to_write_colours_is_accepted(mode: str, kind: str) -> None:
    for side in (1, 40):
        assert shrunk(encoded(Image.new(mode, (side, side)), kind)).size == (side, side)


@pytest.mark.parametrize("kind", ["MPO", "WEBP", "PNG"])
def test_of_several_pictures_in_one_file_the_first_is_shown(kind: str) -> None:
    other = Image.new("RGB", (64, 32), GREEN)
    small = shrunk(encoded(halves(), kind, save_all=True, append_images=[other]))
    assert (colour_at(small, 0.1), colour_at(small, 0.9)) == (RED, BLUE)
