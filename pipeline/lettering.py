"""Texts for pictures: characters that the font has, lines that fit."""

from functools import lru_cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

MISSING = "\uffff"  # a noncharacter: fonts draw it as their box for missing glyphs
GLYPH_PX = 64
SEPARATORS = "/_-."

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
Lines = list[str]


def load_font(size_px: int) -> Font:
    """DejaVu Sans as it comes with matplotlib; PIL's own font has ASCII only."""
    import matplotlib as mpl

    return ImageFont.truetype(Path(mpl.get_data_path(), "fonts/ttf/DejaVuSans.ttf"), size_px)


@lru_cache(maxsize=4096)
def _glyph(character: str, font: Font) -> bytes:
    """How a character looks, for telling the box of a missing glyph from others."""
    canvas = Image.new("L", (GLYPH_PX, GLYPH_PX))
    ImageDraw.Draw(canvas).text((2, 2), character, fill=255, font=font)
    return canvas.tobytes()


def shown(text: str, font: Font) -> str:
    """The text with control characters and those without a glyph as backslash escapes."""
    return "".join(
        c
        if c in " \n" or (c.isprintable() and _glyph(c, font) != _glyph(MISSING, font))
        else ascii(c)[1:-1]
        for c in text
    )


def wrapped(text: str, font: Font, room: float) -> Lines:
    """Lines no wider than `room` px; wider words are broken."""
    lines: Lines = []
    for paragraph in shown(text, font).split("\n"):
        current = ""
        for word in paragraph.split():
            joined = f"{current} {word}".strip()
            if font.getlength(joined) <= room:
                current = joined
                continue
            if current:
                lines.append(current)
            *full, current = _broken(word, font, room)
            lines += full
        if current:
            lines.append(current)
    return lines


def _broken(word: str, font: Font, room: float) -> Lines:
    """A word cut into pieces no wider than `room` px, at least one character each."""
    pieces = [""]
    for character in word:
        if pieces[-1] and font.getlength(pieces[-1] + character) > room:
            # After a separator if there is one: paths and file names then stay readable.
            cut = max(pieces[-1].rfind(mark) for mark in SEPARATORS) + 1 or len(pieces[-1])
            pieces[-1:] = [pieces[-1][:cut], pieces[-1][cut:]]
        pieces[-1] += character
    return pieces
