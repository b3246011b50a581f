"""Avatars with known attributes: (seed, index) -> attributes -> 64-px picture.

Drawn by the MIT-licensed library python-avatars and rasterised by resvg. Only natural-looking
options are used; every avatar depends on its seed and index alone, never on how many are drawn.
"""

import io
import re
from dataclasses import asdict, dataclass

import numpy as np
import python_avatars as pa
import resvg_py
from PIL import Image

from pipeline.rng import generator_for

IMAGE_SIZE = 64
BACKGROUND = "#cfe3f2"
VIEW_BOX = "26 28 212 212"  # head and shoulders; the library's own canvas is 264 x 280

# name -> (probability, drawings); one of the drawings is taken at random
HAIR_STYLES = {
    "short": (
        0.30,
        (pa.HairType.SHORT_FLAT, pa.HairType.SHORT_ROUND, pa.HairType.SHORT_WAVED),
    ),
    "long": (
        0.24,
        (pa.HairType.STRAIGHT_1, pa.HairType.STRAIGHT_STRAND, pa.HairType.LONG_NOT_TOO_LONG),
    ),
    "bob": (0.08, (pa.HairType.BOB,)),
    "curly": (0.12, (pa.HairType.CURLY, pa.HairType.FRO)),
    "bun": (0.06, (pa.HairType.BUN,)),
    "bald": (0.07, (pa.HairType.NONE,)),
}
HATS = {
    "hat": (0.065, (pa.HatType.HAT,)),
    "winter hat": (0.065, (pa.HatType.WINTER_HAT_3, pa.HatType.WINTER_HAT_1)),
}
HAIR_COLORS = {
    "black": (0.20, (pa.HairColor.BLACK,)),
    "brown": (0.22, (pa.HairColor.BROWN,)),
    "blond": (0.20, (pa.HairColor.BLONDE_GOLDEN,)),
    "red": (0.14, (pa.HairColor.RED,)),
    "gray": (0.13, (pa.HairColor.SILVER_GRAY,)),
    "pink": (0.11, (pa.HairColor.PASTEL_PINK,)),
}
SKIN_TONES = {
    "pale": (0.22, (pa.SkinColor.PALE,)),
    "light": (0.28, (pa.SkinColor.LIGHT,)),
    "tanned": (0.20, (pa.SkinColor.BROWN,)),
    "brown": (0.16, (pa.SkinColor.DARK_BROWN,)),
    "dark": (0.14, (pa.SkinColor.BLACK,)),
}
FACIAL_HAIR = {
    "none": (0.58, (pa.FacialHairType.NONE,)),
    "short beard": (0.10, (pa.FacialHairType.BEARD_LIGHT,)),
    "beard": (0.10, (pa.FacialHairType.BEARD_MEDIUM,)),
    "long beard": (0.10, (pa.FacialHairType.BEARD_MAGESTIC,)),
    "moustache": (
        0.12,
        (pa.FacialHairType.MOUSTACHE_FANCY, pa.FacialHairType.MOUSTACHE_MAGNUM),
    ),
}
GLASSES = {
    "none": (0.54, (pa.AccessoryType.NONE,)),
    "eyeglasses": (0.23, (pa.AccessoryType.PRESCRIPTION_2, pa.AccessoryType.ROUND)),
    "sunglasses": (0.23, (pa.AccessoryType.SUNGLASSES, pa.AccessoryType.WAYFARERS)),
}
EYES = {
    "normal": (0.55, (pa.EyeType.DEFAULT,)),
    "closed": (0.22, (pa.EyeType.CLOSED,)),
    "big": (0.23, (pa.EyeType.SURPRISED,)),
}
EYEBROWS = {
    "normal": (0.46, (pa.EyebrowType.DEFAULT,)),
    "raised": (0.18, (pa.EyebrowType.RAISED_EXCITED,)),
    "angry": (0.18, (pa.EyebrowType.ANGRY,)),
    "sad": (0.18, (pa.EyebrowType.SAD_CONCERNED,)),
}
MOUTHS = {
    "smile": (0.36, (pa.MouthType.SMILE,)),
    "serious": (0.26, (pa.MouthType.SERIOUS,)),
    "sad": (0.20, (pa.MouthType.SAD,)),
    "open": (0.18, (pa.MouthType.SCREAM_OPEN,)),
}
CLOTHES = {
    "shirt": (0.45, (pa.ClothingType.SHIRT_CREW_NECK,)),
    "hoodie": (0.30, (pa.ClothingType.HOODIE,)),
    "suit": (0.25, (pa.ClothingType.BLAZER_SHIRT,)),
}
CLOTHES_COLORS = {
    "black": (0.18, (pa.ClothingColor.BLACK,)),
    "blue": (0.20, (pa.ClothingColor.BLUE_02,)),
    "red": (0.18, (pa.ClothingColor.RED,)),
    "white": (0.16, (pa.ClothingColor.WHITE,)),
    "green": (0.14, (pa.ClothingColor.PASTEL_GREEN,)),
    "yellow": (0.14, (pa.ClothingColor.PASTEL_YELLOW,)),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Attributes:
    """What is visible in one avatar; "hidden" where something else covers it."""

    hair_style: str
    """short, long, bob, curly, bun, bald; "hidden" under a hat."""
    hair_color: str
    """black, brown, blond, red, gray, pink; "hidden" when neither hair nor beard shows."""
    hat: str
    """none, hat, winter hat."""
    skin_tone: str
    """pale, light, tanned, brown, dark."""
    facial_hair: str
    """none, short beard, beard, long beard, moustache."""
    glasses: str
    """none, eyeglasses, sunglasses."""
    eyes: str
    """normal, closed, big; "hidden" behind sunglasses."""
    eyebrows: str
    """normal, raised, angry, sad; "hidden" behind sunglasses or under a winter hat."""
    mouth: str
    """smile, serious, sad, open."""
    clothes: str
    """shirt, hoodie, suit."""
    clothes_color: str
    """black, blue, red, white, green, yellow; "hidden" for suits, which are always dark."""

    def as_dict(self) -> dict[str, str]:
        """Attribute name -> value."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Avatar:
    """One avatar: its drawing instructions and what they show."""

    svg: str
    attributes: Attributes

    def pixels(self, size: int = IMAGE_SIZE) -> np.ndarray:
        """The picture, [size, size, 3] uint8 RGB."""
        png = resvg_py.svg_to_bytes(
            svg_string=self.svg, width=size, height=size, background=BACKGROUND
        )
        return np.asarray(Image.open(io.BytesIO(bytes(png))).convert("RGB"))


def draw_avatar(seed: int, index: int) -> Avatar:
    """The avatar number `index` of the series `seed`; the same on every machine."""
    rng = generator_for(seed, "avatar", index)

    def pick(table: dict) -> tuple:
        names = list(table)
        chances = np.array([table[name][0] for name in names])
        name = names[rng.choice(len(names), p=chances / chances.sum())]
        drawings = table[name][1]
        return name, drawings[rng.integers(len(drawings))]

    top, top_drawing = pick(HAIR_STYLES | HATS)
    hair_color, hair_color_drawing = pick(HAIR_COLORS)
    hat_color_drawing = pick(CLOTHES_COLORS)[1]
    skin, skin_drawing = pick(SKIN_TONES)
    facial_hair, facial_hair_drawing = pick(FACIAL_HAIR)
    glasses, glasses_drawing = pick(GLASSES)
    eyes, eyes_drawing = pick(EYES)
    eyebrows, eyebrows_drawing = pick(EYEBROWS)
    mouth, mouth_drawing = pick(MOUTHS)
    clothes, clothes_drawing = pick(CLOTHES)
    clothes_color, clothes_color_drawing = pick(CLOTHES_COLORS)

    svg = pa.Avatar(
        style=pa.AvatarStyle.TRANSPARENT,
        top=top_drawing,
        hat_color=hat_color_drawing,
        hair_color=hair_color_drawing,
        facial_hair_color=hair_color_drawing,
        facial_hair=facial_hair_drawing,
        skin_color=skin_drawing,
        accessory=glasses_drawing,
        eyes=eyes_drawing,
        eyebrows=eyebrows_drawing,
        mouth=mouth_drawing,
        nose=pa.NoseType.DEFAULT,
        clothing=clothes_drawing,
        clothing_color=clothes_color_drawing,
        shirt_graphic=pa.ClothingGraphic.NONE,
    ).render()
    hat = top if top in HATS else "none"
    hair_style = "hidden" if top in HATS else top
    hairless = hair_style in ("hidden", "bald") and facial_hair == "none"
    attributes = Attributes(
        hair_style=hair_style,
        hair_color="hidden" if hairless else hair_color,
        hat=hat,
        skin_tone=skin,
        facial_hair=facial_hair,
        glasses=glasses,
        eyes="hidden" if glasses == "sunglasses" else eyes,
        eyebrows="hidden" if glasses == "sunglasses" or hat == "winter hat" else eyebrows,
        mouth=mouth,
        clothes=clothes,
        clothes_color="hidden" if clothes == "suit" else clothes_color,
    )
    return Avatar(_cropped(svg), attributes)


def _cropped(svg: str) -> str:
    svg = re.sub(r'viewBox="[^"]*"', f'viewBox="{VIEW_BOX}"', svg, count=1)
    return re.sub(r'width="\d+px" height="\d+px"', 'width="212px" height="212px"', svg, count=1)
