"""Profile pictures: checked by their content, and made small."""

import io
import threading
from contextlib import suppress
from typing import BinaryIO

from PIL import Image, ImageOps
from wtforms import ValidationError

# What is accepted: Pillow's names and their media types.
FORMATS = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp"}
# A few bytes can claim to be a picture that fills the memory. A JPEG is decoded no larger than needed; a WebP takes 16
# bytes for each pixel.
MOST_MEGAPIXELS = {"JPEG": 30, "PNG": 12, "WEBP": 12}
TOO_MANY_PIXELS = "This picture has too many pixels: a JPEG may have 30 million, a PNG or WebP 12 million."
# Pixels along each side of the square that is shown.
SIDE = 512
# One picture at a time in each process.
decoding = threading.Lock()


def check_picture(stream: BinaryIO, media_type: str) -> None:
    """Raise `ValidationError` unless the file is a whole picture of the media type that the browser has named."""
    if not stream.read(1):
        raise ValidationError("This file is empty.")
    stream.seek(0)
    try:
        with decoding, Image.open(stream, formats=tuple(FORMATS)) as image:
            # A photo with a second one behind it is called MPO.
            found = "JPEG" if image.format == "MPO" else image.format or ""
            if media_type != FORMATS[found]:
                raise ValidationError(f"This file says it is {media_type}, but it is a {found} picture.")
            if image.width * image.height > MOST_MEGAPIXELS[found] * 1_000_000:
                raise ValidationError(TOO_MANY_PIXELS)
            image.draft("RGB", (SIDE, SIDE))
            image.load()
    except ValidationError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ValidationError(TOO_MANY_PIXELS) from None
    except Exception:  # noqa: BLE001  (Pillow's decoders raise anything for a damaged file)
        raise ValidationError("This is not a JPEG, PNG or WebP picture, or it is damaged.") from None


def small_picture(stream: BinaryIO) -> bytes:
    """A square WebP of at most SIDE pixels, cut from the middle, upright, and without metadata such as the place."""
    with decoding, Image.open(stream, formats=tuple(FORMATS)) as opened:
        opened.draft("RGB", (SIDE, SIDE))
        image: Image.Image = opened
        with suppress(Exception):  # What a camera has written beside the picture may be damaged.
            image = ImageOps.exif_transpose(opened)
        if image.mode == "I;16":
            # Converted directly, all but the darkest greys would turn white.
            image = image.convert("I").point(lambda value: value * (1 / 256)).convert("L")
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    file = io.BytesIO()
    side = min(SIDE, *image.size)
    ImageOps.fit(image, (side, side)).save(file, "WEBP", quality=85, exif=b"", xmp=b"")
    return file.getvalue()
