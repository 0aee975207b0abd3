"""One image file: what its header says, and its pixels."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from meanflow_core.arrays import Array
from meanflow_core.data.account import shown
from meanflow_core.data.layout import LayoutError

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".ppm", ".pgm", ".tif", ".tiff", ".gif"}
# What the content may be, whatever the suffix says: Pillow reads formats, too, that it hands to other programs.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "PPM", "TIFF", "GIF")  # a JPEG of several pictures (MPO) is one, too
GREY = {"1", "L", "LA", "La"}
ALPHA = {"LA", "La", "PA", "RGBA", "RGBa"}
ORIENTATION, TURNED = 0x0112, range(2, 9)  # EXIF; 1 is upright
BITS_PER_SAMPLE = 258  # TIFF


@dataclass(frozen=True)
class Header:
    """What is known without decoding. ``grey``: without colour, by its mode; ``alpha``: pixels may be transparent;
    ``inks``: CMYK; ``frames``: how many there are; ``deep``: format and mode of what has more than 8 bits a channel;
    ``stretched``: a channel's values go to less than 255, and Pillow scales them."""

    grey: bool
    alpha: bool
    inks: bool
    frames: int
    deep: str | None
    stretched: bool


@dataclass(frozen=True)
class Picture:
    """Pixels (C, H, W) uint8, and what was done to get them."""

    pixels: Array
    turned: bool
    transparent: bool
    enlarged: bool
    cut: bool


def read_header(path: Path) -> Header:
    """Raises: LayoutError where it is no image."""
    with _opened(path) as image:
        return Header(
            grey=image.mode in GREY,
            alpha=_has_alpha(image),
            inks=image.mode == "CMYK",
            frames=getattr(image, "n_frames", 1),
            deep=f"{image.format}, mode {image.mode}" if _is_deep(image) else None,
            stretched=_is_stretched(image),
        )


def read_picture(path: Path, size: int | None, mode: str, background: str) -> Picture:
    """The first frame, upright.

    Args:
        size: the side to which it is brought: scaled by its shorter side, then cut in the middle.
        mode: ``L``, grey, or ``RGB``.
        background: a colour that Pillow knows; transparent pixels are laid upon it.
    Raises: LayoutError where the file is damaged.
    """
    from PIL import Image, ImageOps

    with _opened(path) as opened:
        turned = opened.getexif().get(ORIENTATION) in TURNED
        image: Image.Image = ImageOps.exif_transpose(opened)
        transparent = False
        if _has_alpha(image):
            image = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
            transparent = image.getchannel("A").getextrema()[0] < 255  # type: ignore[operator]  # one channel, one pair
            image = Image.alpha_composite(Image.new("RGBA", image.size, background), image)
        image = image.convert(mode)
        width, height = image.size
        if size is not None:
            image = ImageOps.fit(image, (size, size), Image.Resampling.LANCZOS)
        pixels = np.asarray(image, dtype=np.uint8)
    return Picture(
        pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1),
        turned=turned,
        transparent=transparent,
        enlarged=size is not None and min(width, height) < size,
        cut=size is not None and width != height,
    )


def colour(said: str) -> str:
    """``#rrggbb`` of a colour as HTML names it. Raises: LayoutError."""
    from PIL import ImageColor

    try:
        channels: tuple[int, ...] = ImageColor.getrgb(said)
    except ValueError:
        channels = ()
    if len(channels) != 3 or max(channels) > 255:
        raise LayoutError(f"'{said}' is no colour without transparency: white, black, '#808080', ...")
    return "#" + bytes(channels).hex()


def is_grey(background: str) -> bool:
    """Whether ``#rrggbb`` has no colour."""
    return background[1:3] == background[3:5] == background[5:7]


def _has_alpha(image: Image.Image) -> bool:
    return image.mode in ALPHA or "transparency" in image.info


def _is_deep(image: Image.Image) -> bool:
    """Whether a channel has more than 8 bits; Pillow cuts those of coloured images to 8 without a word."""
    if image.mode.startswith(("I", "F")):
        return True
    if image.format == "TIFF":
        bits: Any = image.tag_v2.get(BITS_PER_SAMPLE, (1,))  # type: ignore[attr-defined]
        return max(bits) > 8
    packing = _packing(image)
    if image.format == "PPM":
        return any(isinstance(part, int) and part > 255 for part in packing)
    return image.format == "PNG" and any(isinstance(part, str) and ";16" in part for part in packing)


def _is_stretched(image: Image.Image) -> bool:
    """Whether grey of 2 or 4 bits, or a PPM whose largest value is below 255, is scaled to 0 to 255. (Of 1 bit there is
    black and white alone.)"""
    packing = _packing(image)
    if image.format == "PPM":
        return any(isinstance(part, int) and part < 255 for part in packing)
    return image.format in {"PNG", "TIFF"} and any(str(part).startswith(("L;2", "L;4")) for part in packing)


def _packing(image: Image.Image) -> list[Any]:
    """What Pillow's decoders are told of how the file's pixels are packed: modes such as ``L;4``, and of a PPM its
    largest value."""
    ways = [tile[3] for tile in getattr(image, "tile", [])]
    return [part for way in ways for part in (way if isinstance(way, tuple) else (way,))]


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of images that are large, but below what Pillow refuses; of odd metadata
            with Image.open(path, formats=FORMATS) as image:
                yield image
    except LayoutError:
        raise
    except Exception as error:  # a damaged file: Pillow's plugins have errors of all kinds
        said = str(error).replace(str(path), path.name) or type(error).__name__
        raise LayoutError(f"{shown(path)} cannot be read as an image: {shown(said)}") from None
