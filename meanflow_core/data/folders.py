"""Folders of images: which files are taken, and as what."""

from __future__ import annotations

import os
import stat
import unicodedata
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from meanflow_core.arrays import CHUNK_BYTES, Array
from meanflow_core.data.account import Account, shown
from meanflow_core.data.layout import LayoutError
from meanflow_core.data.pictures import SUFFIXES, Header, Picture, colour, is_grey, read_header, read_picture
from meanflow_core.data.source import BATCH, EIGHT_BITS, Source
from meanflow_core.words import counted

BACKGROUND = "white"


def read_folder(root: Path, size: int | None, background: str, account: Account) -> Source:
    """``root/<class>/*.png``, or ``root/*.png`` without classes. Links are followed.

    Args:
        size: the side to which images are brought.
        background: the colour behind transparent pixels.
    Raises: LayoutError where there are no images, or they are unsuited.
    """
    beneath = colour(background)
    found = _images(root, account)
    if not found:
        raise LayoutError(
            f"{shown(root)} holds no images ({', '.join(sorted(SUFFIXES))})"
            + "".join(f"\n  {line}" for line in account.said("left out"))
        )
    labels, classes = _classes(root, found, account)
    headers = [read_header(path) for path in found]
    _refuse_deep(found, headers)
    grey = [header.grey and (is_grey(beneath) or not header.alpha) for header in headers]
    mode = "L" if all(grey) else "RGB"
    for path, header, is_it in zip(found, headers, grey, strict=True):
        _note_header(header, is_it and mode != "L", path.relative_to(root), account)
    first = read_picture(found[0], size, mode, beneath).pixels
    step = max(1, min(BATCH, CHUNK_BYTES // first.nbytes))

    def batches() -> Iterator[Array]:
        for at in range(0, len(found), step):
            batch = []
            for path in found[at : at + step]:
                picture = read_picture(path, size, mode, beneath)
                if picture.pixels.shape != first.shape:
                    sides = f"{_sides(picture.pixels)} pixels, and {shown(found[0].name)} {_sides(first)}"
                    raise LayoutError(f"{shown(path)} has {sides}: bring all to one size with --size")
                _note_picture(picture, path.relative_to(root), beneath, account)
                batch.append(picture.pixels)
            yield np.stack(batch)

    said = f"folder {shown(root.name or root.resolve().name)}"
    return Source(batches, len(found), said, labels, classes, EIGHT_BITS, beneath)


def _images(root: Path, account: Account) -> list[Path]:
    """The image files below a folder, by their names; all else is left out, and accounted for."""
    found: list[Path] = []
    waiting = [(root, frozenset({_identity(root.stat())}))]
    while waiting:
        folder, above = waiting.pop()
        for path in _entries(folder):
            if path.name.startswith("."):
                account.add("left out", "hidden file or folder", "hidden files and folders", path.relative_to(root))
                continue
            try:
                info = path.stat()
            except OSError as error:
                if not path.is_symlink():
                    raise LayoutError(f"{shown(path)} cannot be read: {error.strerror}") from None
                account.add("left out", "link that leads nowhere", "links that lead nowhere", path.relative_to(root))
                continue
            if stat.S_ISDIR(info.st_mode):
                if _identity(info) in above:
                    one, many = "link to a folder that it lies in", "links to folders that they lie in"
                    account.add("left out", one, many, path.relative_to(root))
                else:
                    waiting.append((path, above | {_identity(info)}))
            elif not stat.S_ISREG(info.st_mode):
                account.add("left out", "pipe, socket or device", "pipes, sockets and devices", path.relative_to(root))
            elif path.suffix.lower() not in SUFFIXES:
                account.add("left out", "file of another type", "files of other types", path.relative_to(root))
            else:
                found.append(path)
    return sorted(found, key=lambda path: path.parts)


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise LayoutError(f"{shown(folder)} cannot be read: {error.strerror}") from None


def _identity(info: os.stat_result) -> tuple[int, int]:
    return info.st_dev, info.st_ino


def _classes(root: Path, found: list[Path], account: Account) -> tuple[Array | None, tuple[str, ...]]:
    """Labels and names of the classes, which are the folders right below the root, in the order of their names."""
    depth = len(root.parts)
    loose = [path for path in found if len(path.parts) == depth + 1]
    folders = sorted({path.parts[depth] for path in found if len(path.parts) > depth + 1})
    if folders and loose:
        raise LayoutError(
            f"{shown(loose[0])} belongs to no class: either all images lie in subfolders, or none does "
            f"({counted(len(loose), 'image')} beside {counted(len(folders), 'subfolder')} of images)"
        )
    for path in _entries(root):
        if not path.name.startswith(".") and path.is_dir() and path.name not in folders:
            account.add("left out", "subfolder without an image", "subfolders without images", path.name)
    if not folders:
        return None, ()
    names = tuple(map(shown, folders))
    alike: dict[str, list[str]] = defaultdict(list)
    for folder, name in zip(folders, names, strict=True):
        if folder != name:
            since = "with escapes, since the folder's name is no printable text"
            account.add("warning", f"class is named {since}", f"classes are named {since}", name)
        alike[unicodedata.normalize("NFKC", name).casefold().strip()].append(name)
    for same in alike.values():
        if len(same) > 1:
            account.warn(f"the names of different classes are hardly told apart: {', '.join(map(repr, same))}")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise LayoutError(f"two classes would be called {twice!r}: rename one of the folders")
    number = {folder: label for label, folder in enumerate(folders)}
    return np.array([number[path.parts[depth]] for path in found]), names


def _refuse_deep(found: list[Path], headers: list[Header]) -> None:
    """Raises: LayoutError where images have more than 8 bits a channel, which Pillow would cut without a word."""
    deep = [(path, header.deep) for path, header in zip(found, headers, strict=True) if header.deep]
    if deep:
        path, how = deep[0]
        others = f", and so have {counted(len(deep) - 1, 'other')}" if len(deep) > 1 else ""
        deeper = f"{shown(path)} has more than 8 bits a channel ({how}){others}"
        raise LayoutError(f"{deeper}: convert to 8 bits, or add an array of values")


def _sides(pixels: Array) -> str:
    return f"{pixels.shape[1]}×{pixels.shape[2]}"


def _note_header(header: Header, spread: bool, name: Path, account: Account) -> None:
    if header.frames > 1:
        account.add("left out", "further frame of images", "further frames of images", name, header.frames - 1)
    if header.inks:
        inks = "converted from CMYK without a colour profile"
        account.add("warning", f"image was {inks}", f"images were {inks}", name)
    if header.stretched:
        levels = "of fewer than 256 levels, scaled to 0 to 255"
        account.add("changed", f"image {levels}", f"images {levels}", name)
    if spread:
        account.add("changed", "grey image in three equal channels", "grey images in three equal channels", name)


def _note_picture(picture: Picture, name: Path, beneath: str, account: Account) -> None:
    if picture.enlarged:
        account.add("warning", "image was enlarged", "images were enlarged", name)
    if picture.cut:
        account.add("changed", "image cut to a square", "images cut to a square", name)
    if picture.turned:
        account.add("changed", "image turned as its EXIF says", "images turned as their EXIF says", name)
    if picture.transparent:
        laid = f"with transparent pixels, laid on {beneath}"
        account.add("changed", f"image {laid}", f"images {laid}", name)
