"""One image file as bytes of its pixels; what is no small enough PNG or JPEG is refused.

Free of torch. Pillow is imported where it is used.
"""

from __future__ import annotations

import io
import os
import stat
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fairneuron.errors import DataError, OptionError, printable

if TYPE_CHECKING:
    from PIL.Image import Image

Pixels = npt.NDArray[np.uint8]
ENDINGS = (".png", ".jpg", ".jpeg")
MOST_BYTES = 64 << 20  # of a file
MOST_PIXELS = 1 << 26  # of an image
_GREY, _COLOUR, _SEE_THROUGH = ("1", "L"), ("RGB", "P", "CMYK", "YCbCr"), ("LA", "RGBA", "PA")


def read_image(path: Path, *, size: tuple[int, int] | None = None) -> Pixels:
    """Reads a PNG or JPEG file, of a file with several frames the first.

    The pixels are those that are stored: no turning by EXIF, no colour profiles.

    Args:
        path: The file.
        size: Height and width to resize to (bilinear).

    Returns:
        ``(1, height, width)`` if it is grey, else ``(3, height, width)``.

    Raises:
        DataError: For what is no whole image, one that is too large, and one that shows through.
        OptionError: Without Pillow.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise OptionError(
            "option-extra",
            "Image files need Pillow",
            got=str(path),
            cure="pip install 'fairneuron[images]', or give the images as .npz.",
        ) from error
    content = _content(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damaged metadata, which is not read
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=("PNG", "JPEG")) as image:
                if image.width * image.height > MOST_PIXELS:
                    raise Image.DecompressionBombError  # as Pillow does
                image.load()
                whole = _plain(image, path)
                if size is not None and (whole.height, whole.width) != size:
                    whole = whole.resize(size[::-1], Image.Resampling.BILINEAR)
                pixels: Pixels = np.array(whole, dtype=np.uint8)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(
            "data-bomb",
            f"An image must have at most {MOST_PIXELS >> 20} million pixels",
            got=f"more in {_name(path)}",
            cure="Make it smaller.",
        ) from error
    except DataError:
        raise
    except Exception as error:  # Pillow raises many kinds for damaged files
        lines = str(error).splitlines() or [type(error).__name__]
        raise _refused(path, printable(lines[0])[:200]) from error
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _content(path: Path) -> bytes:
    """The bytes of a regular file that is not too large."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a FIFO would wait forever
            raise _refused(path, "a folder, pipe or device")
        with open(path, "rb", opener=lambda p, flags: os.open(p, flags | _NO_WAIT)) as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise _refused(path, error.strerror or "it cannot be read") from error
    if len(content) > MOST_BYTES:
        raise DataError(
            "data-bomb",
            f"An image file must have at most {MOST_BYTES >> 20} MiB",
            got=f"more in {_name(path)}",
            cure="Make it smaller.",
        )
    return content


def _plain(image: Image, path: Path) -> Image:
    """The image in grey or in red, green and blue."""
    through = image.mode in _SEE_THROUGH or "transparency" in image.info
    if through and image.convert("RGBA").getchannel("A").getextrema() != (255, 255):
        raise _refused(path, "pixels that show through", "Put it on a background.")
    if image.mode in (*_GREY, "LA"):
        return image.convert("L")
    if image.mode in (*_COLOUR, *_SEE_THROUGH):
        return image.convert("RGB")
    raise _refused(path, f"pixels of the kind {image.mode}", "Save it with 8 bits a channel.")


def _refused(path: Path, got: str, cure: str = "Save it again as PNG or JPEG.") -> DataError:
    return DataError(
        "data-image",
        "An image must be a whole PNG or JPEG file",
        got=f"{_name(path)}: {got}",
        cure=cure,
    )


def _name(path: Path) -> str:
    return printable(str(path))


_NO_WAIT = getattr(os, "O_NONBLOCK", 0)
