"""Profile pictures: checked by their content, and made small.

A decoder can be made to work for hours by a few bytes. So this file runs as a program of its own for each picture, and
the kernel ends it when it takes too long or too much memory. Only that program loads Pillow.
"""

import io
import resource
import subprocess
import sys
import threading
from contextlib import suppress
from typing import BinaryIO

# What is accepted: Pillow's names and their media types.
FORMATS = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp"}
# A JPEG is decoded no larger than needed; a WebP takes 16 bytes for each pixel.
MOST_MEGAPIXELS = {"JPEG": 30, "PNG": 12, "WEBP": 12}
TOO_MANY_PIXELS = "This picture has too many pixels: a JPEG may have 30 million, a PNG or WebP 12 million."
UNREADABLE = "This is not a JPEG, PNG or WebP picture, or it is damaged."
# A progressive JPEG has about ten. Each can cost as much as a whole picture.
MOST_SCANS = 100
# Pixels along each side of the square that is shown.
SIDE = 512
# Seconds of a processor that the program may take, and bytes of memory.
SECONDS, MEMORY = {"check": 1, "shrink": 10}, 1 << 30
# Its exit code when it prints what to tell the user.
REFUSED = 3
# A worker makes one picture small at a time; each may take much of that memory.
shrinking = threading.Lock()


class UnusablePicture(Exception):
    """Why a file cannot be a picture, in words for the user."""


def check_picture(stream: BinaryIO, media_type: str) -> None:
    """Raise `UnusablePicture` unless the file begins as a picture of the media type that the browser has named.

    Only its header is read. `small_picture` finds out whether the rest is whole.
    """
    kind = _run("check", stream).decode()
    if FORMATS[kind] != media_type:
        raise UnusablePicture(f"This file says it is {media_type}, but it is a {kind} picture.")


def small_picture(stream: BinaryIO) -> bytes:
    """A square WebP of at most SIDE pixels, cut from the middle, upright, and without metadata such as the place.

    Raises `UnusablePicture`.
    """
    with shrinking:
        return _run("shrink", stream)


def check(stream: BinaryIO) -> str:
    """Pillow's name of the format, as the header tells; nothing is decoded."""
    # With the plugin, because Pillow, to find a format that it has not loaded, imports every one.
    from PIL import Image, WebPImagePlugin  # noqa: F401

    if not (data := stream.read()):
        raise UnusablePicture("This file is empty.")
    try:
        with Image.open(io.BytesIO(data), formats=tuple(FORMATS)) as image:
            # A photo with a second one behind it is called MPO.
            kind = "JPEG" if image.format == "MPO" else image.format or ""
            if image.width * image.height > MOST_MEGAPIXELS[kind] * 1_000_000:
                raise UnusablePicture(TOO_MANY_PIXELS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise UnusablePicture(TOO_MANY_PIXELS) from None
    if kind == "JPEG" and data.count(b"\xff\xda") > MOST_SCANS:
        raise UnusablePicture(f"This picture has too many scans: a JPEG may have {MOST_SCANS}.")
    return kind


def shrink(stream: BinaryIO) -> bytes:
    """What `small_picture` returns."""
    from PIL import Image, ImageCms, ImageOps

    check(stream)
    stream.seek(0)
    with Image.open(stream, formats=tuple(FORMATS)) as opened:
        opened.draft("RGB", (SIDE, SIDE))
        image: Image.Image = opened
        with suppress(Exception):  # What a camera has written beside the picture may be damaged.
            image = ImageOps.exif_transpose(opened)
        if image.mode == "I;16":
            # Converted directly, all but the darkest greys would turn white.
            image = image.convert("I").point(lambda value: value * (1 / 256)).convert("L")
        mode = "RGBA" if image.has_transparency_data else "RGB"
        side = min(SIDE, *image.size)
        image = ImageOps.fit(image if image.mode == "CMYK" else image.convert(mode), (side, side))
        with suppress(OSError, ImageCms.PyCMSError):  # It has no colour profile, or a damaged one.
            profile = ImageCms.ImageCmsProfile(io.BytesIO(opened.info.get("icc_profile", b"")))
            image = ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"), outputMode=mode) or image
        image = image.convert(mode)
    file = io.BytesIO()
    image.save(file, "WEBP", quality=85, exif=b"", xmp=b"")
    return file.getvalue()


def _run(step: str, stream: BinaryIO) -> bytes:
    # Isolated, so that nothing beside this file, and no variable, decides what is imported.
    program = [sys.executable, "-I", __file__, step]
    done = subprocess.run(program, input=stream.read(), capture_output=True, check=False)  # noqa: S603  (fixed words)
    if done.returncode:
        raise UnusablePicture(done.stdout.decode() if done.returncode == REFUSED else UNREADABLE)
    return done.stdout


def process(step: str, stream: BinaryIO) -> bytes:
    """Do one step, and raise nothing but `UnusablePicture`."""
    try:
        return check(stream).encode() if step == "check" else shrink(stream)
    except UnusablePicture:
        raise
    except Exception:  # noqa: BLE001  (Pillow's decoders raise anything for a damaged file)
        raise UnusablePicture(UNREADABLE) from None


def main(step: str) -> None:
    """Do one step with the file on standard input."""
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS[step], SECONDS[step]))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    try:
        sys.stdout.buffer.write(process(step, io.BytesIO(sys.stdin.buffer.read())))
    except UnusablePicture as error:
        sys.stdout.write(str(error))
        sys.exit(REFUSED)


if __name__ == "__main__":
    main(sys.argv[1])
