"""Profile pictures: checked by what they hold, and made small."""

import io
import threading
from typing import BinaryIO

from PIL import Image, ImageOps

# What is taken, by Pillow's name, with the media type that goes with it.
FORMATS = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp"}
# A few bytes can claim to be a picture that fills the memory. A JPEG is read no larger than it is needed; a WebP takes
# 16 bytes for each pixel.
MOST_MEGAPIXELS = {"JPEG": 30, "PNG": 12, "WEBP": 12}
TOO_MANY_PIXELS = (
    f"This picture has too many pixels: at most {MOST_MEGAPIXELS['JPEG']} million are taken in a JPEG, "
    f"{MOST_MEGAPIXELS['PNG']} million in others."
)
# One picture at a time in each process.
decoding = threading.Lock()
# Pixels along each side of the square that is shown.
SIDE = 512


class UnusablePicture(Exception):
    """Why a file cannot be a picture, in words for the user."""


def check_picture(stream: BinaryIO, media_type: str) -> None:
    """Refuse a file that is no whole picture, whatever it is called.

    Args:
        stream: the file.
        media_type: what the browser says it is.

    Raises:
        UnusablePicture: it is empty, of another kind, of another kind than it says, damaged, or of too many pixels.
    """
    if not stream.read(1):
        raise UnusablePicture("This file is empty.")
    stream.seek(0)
    try:
        with decoding, Image.open(stream, formats=tuple(FORMATS)) as image:
            # A photo with a second one behind it is called MPO.
            found = "JPEG" if image.format == "MPO" else image.format or ""
            if media_type != FORMATS[found]:
                raise UnusablePicture(f"This file says it is {media_type}, but it is a {found} picture.")
            if image.width * image.height > MOST_MEGAPIXELS[found] * 1_000_000:
                raise UnusablePicture(TOO_MANY_PIXELS)
            image.draft("RGB", (SIDE, SIDE))
            image.load()
    except UnusablePicture:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise UnusablePicture(TOO_MANY_PIXELS) from None
    except Exception:  # noqa: BLE001  (Pillow's decoders raise what they like for a damaged file)
        raise UnusablePicture("This is not a JPEG, PNG or WebP picture, or it is damaged.") from None


def small_picture(stream: BinaryIO) -> bytes:
    """A square WebP of at most SIDE pixels from the middle of a picture, upright and without what else was in it.

    Cameras write the place where a picture was taken into it.
    """
    with decoding, Image.open(stream, formats=tuple(FORMATS)) as image:
        image.draft("RGB", (SIDE, SIDE))
        upright = _upright(image)
        if upright.mode == "I;16":
            # Converted at once, all but the darkest greys would be white.
            upright = upright.convert("I").point(lambda value: value * (1 / 256)).convert("L")
        upright = upright.convert("RGBA" if upright.has_transparency_data else "RGB")
    side = min(SIDE, *upright.size)
    file = io.BytesIO()
    ImageOps.fit(upright, (side, side)).save(file, "WEBP", quality=85, exif=b"", xmp=b"")
    return file.getvalue()


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # noqa: BLE001  (as above; what a camera wrote beside the picture need not be whole)
        return image
