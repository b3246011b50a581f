"""Known public models: names, the files users have, sources, licences. Data, and finding files."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.errors import WeightsError

NVIDIA_NC = "NVIDIA Source Code License-NC (non-commercial research); converted by rosinality, MIT"
E4E_LICENCE = "MIT (code and models of encoder4editing); its generator: NVIDIA licence"
DELTAEDIT_LICENCE = "none stated by the authors: ask them before any use beyond reading"
OPENAI_LICENCE = "MIT (openai/CLIP)"
BUNDLED = "bundled with this package, MIT"
BUNDLED_FOLDER = Path(__file__).resolve().parents[1] / "demo" / "weights"

NVIDIA_NETWORKS = "https://nvlabs-fi-cdn.nvidia.com/stylegan2/networks/"
E4E_PAGE = "https://github.com/omertov/encoder4editing#pretrained-models"
DELTAEDIT_PAGE = "https://github.com/Yueming6568/DeltaEdit"
OPENAI_MODELS = "https://openaipublic.azureedge.net/clip/models/"

Kind = Literal["clip", "generator", "encoder", "mapper", "relevance"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelFile:
    """One file that users may have."""

    kind: Kind
    """What it is for."""
    filenames: tuple[str, ...]
    """Names and relative paths it goes by, the usual one first."""
    source: str
    """Where it comes from."""
    licence: str
    """Terms of the weights, as far as their authors state them."""
    sha256: str | None = None
    """Digest, only where the publisher documents it."""
    folder: Path | None = None
    """Where it lies if it is not in the user's models folder."""

    def expected_path(self, folder: Path) -> Path:
        """The file in `folder` under any of its names; the usual place if it is missing."""
        places = [(self.folder or folder) / name for name in self.filenames]
        return next((place for place in places if place.is_file()), places[0])


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSet:
    """The models of one domain, under one name."""

    clip_name: str | None = None
    """An open_clip model name."""
    clip_config: Path | None = None
    """open_clip configuration of a model that open_clip does not know."""
    clip_file: ModelFile | None = None
    """Weights of CLIP where they are the set's own; default: those published for `clip_name`."""
    generator: ModelFile | None = None
    """StyleGAN2."""
    encoder: ModelFile | None = None
    """e4e; some domains have no published one."""
    mapper: ModelFile | None = None
    """A published Delta Mapper."""
    relevance: ModelFile | None = None
    """A published relevance matrix."""
    neutral: str = "face"
    """The domain's word without attributes, for text directions."""
    alignment: str = ""
    """How images must be framed."""

    def clip_path(self, folder: Path, clip_name: str | None = None) -> Path | None:
        """Weights of `clip_name` (default: the set's) in `folder`; None if none are published."""
        name = clip_name or self.clip_name or ""
        file = self.clip_file if name == self.clip_name and self.clip_file else CLIP.get(name)
        return file.expected_path(folder) if file else None

    def generator_path(self, folder: Path) -> Path | None:
        """The generator in `folder`; None if the set has none."""
        return self.generator.expected_path(folder) if self.generator else None

    def encoder_path(self, folder: Path) -> Path | None:
        """The e4e checkpoint in `folder`; None if the set has none."""
        return self.encoder.expected_path(folder) if self.encoder else None

    def files(self) -> Iterator[ModelFile]:
        """The set's files, CLIP first."""
        clip = self.clip_file or CLIP.get(self.clip_name or "")
        files = (clip, self.generator, self.encoder, self.mapper, self.relevance)
        return (file for file in files if file is not None)


def _openai_clip(name: str, sha256: str) -> ModelFile:
    """OpenAI documents the digest as a part of the address."""
    return ModelFile(
        kind="clip",
        filenames=(f"{name}.pt",),
        source=f"{OPENAI_MODELS}{sha256}/{name}.pt",
        licence=OPENAI_LICENCE,
        sha256=sha256,
    )


CLIP: Mapping[str, ModelFile] = {
    "ViT-B-32": _openai_clip(
        "ViT-B-32", "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af"
    ),
    "ViT-B-16": _openai_clip(
        "ViT-B-16", "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f"
    ),
    "ViT-L-14": _openai_clip(
        "ViT-L-14", "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836"
    ),
}
"""OpenAI's weights by open_clip model name."""


def _generator(name: str, *others: str) -> ModelFile:
    """`others`: further names; an e4e checkpoint serves too, it holds its generator."""
    stem = f"stylegan2-{name}-config-f"
    return ModelFile(
        kind="generator",
        filenames=(f"{stem}.pt", *others),
        source=f"{NVIDIA_NETWORKS}{stem}.pkl, converted (docs/official-models.md)",
        licence=NVIDIA_NC,
    )


def _encoder(name: str) -> ModelFile:
    return ModelFile(
        kind="encoder",
        filenames=(f"e4e_{name}_encode.pt",),
        source=E4E_PAGE,
        licence=E4E_LICENCE,
    )


def _bundled(kind: Kind, filename: str) -> ModelFile:
    return ModelFile(
        kind=kind,
        filenames=(filename,),
        source=BUNDLED,
        licence=BUNDLED,
        folder=BUNDLED_FOLDER,
    )


MODEL_SETS: Mapping[str, ModelSet] = {
    "avatar": ModelSet(
        clip_name="avatar-clip",
        clip_config=BUNDLED_FOLDER / "avatar-clip.json",
        clip_file=_bundled("clip", "avatar-clip.safetensors"),
        generator=_bundled("generator", "generator.safetensors"),
        encoder=_bundled("encoder", "e4e.safetensors"),
        neutral="face",
        alignment="avatars as `deltaedit avatars` draws them, 64 px",
    ),
    "ffhq": ModelSet(
        clip_name="ViT-B-32",
        generator=_generator("ffhq", "e4e_ffhq_encode.pt"),
        encoder=_encoder("ffhq"),
        mapper=ModelFile(
            kind="mapper",
            filenames=("net_face.pth", "checkpoints/net_face.pth"),
            source=f"{DELTAEDIT_PAGE}#inference",
            licence=DELTAEDIT_LICENCE,
        ),
        relevance=ModelFile(
            kind="relevance",
            filenames=("fs3.npy", "npy_ffhq/fs3.npy", "npy/ffhq/fs3.npy"),
            source="https://github.com/orpatashnik/StyleCLIP, global_directions/npy/ffhq/fs3.npy",
            licence="MIT (StyleCLIP)",
        ),
        neutral="face",
        alignment="faces aligned as in FFHQ, square",
    ),
    "cat": ModelSet(
        clip_name="ViT-B-32",
        generator=_generator("cat", "stylegan2-cat/netG.pth"),
        neutral="cat",
        alignment="LSUN cat: centre crop, square",
    ),
    "church": ModelSet(
        clip_name="ViT-B-32",
        generator=_generator("church", "stylegan2-church/netG.pth", "e4e_church_encode.pt"),
        encoder=_encoder("church"),
        neutral="church",
        alignment="LSUN church: centre crop, square",
    ),
    "horse": ModelSet(
        clip_name="ViT-B-32",
        generator=_generator("horse", "stylegan2-horse/netG.pth", "e4e_horse_encode.pt"),
        encoder=_encoder("horse"),
        neutral="horse",
        alignment="LSUN horse: centre crop, square",
    ),
    "car": ModelSet(
        clip_name="ViT-B-32",
        generator=_generator("car", "stylegan2-car/netG.pth", "e4e_cars_encode.pt"),
        encoder=_encoder("cars"),
        neutral="car",
        alignment="whole car, landscape 4:3; the generator pads it to 512 x 512 px",
    ),
}
"""Registered sets by name."""


def model_set(name: str) -> ModelSet:
    """The set registered under `name`.

    Raises:
        WeightsError: no such set; lists those there are.
    """
    if name not in MODEL_SETS:
        raise WeightsError(f"no model set {name!r}; registered are {', '.join(MODEL_SETS)}")
    return MODEL_SETS[name]


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundModel:
    """Whether a known file is there."""

    name: str
    """Set name, or open_clip model name."""
    file: ModelFile
    """What the registry knows of it."""
    path: Path
    """Where it is, or would be looked for first."""
    found: bool
    """Whether it is there; its content is not checked."""


def find_models(folder: Path) -> list[FoundModel]:
    """Every known file with where it is in `folder` (or where it is missing), sets first."""
    published = {id(file) for file in CLIP.values()}
    entries = [
        (name, file)
        for name, known in MODEL_SETS.items()
        for file in known.files()
        if id(file) not in published
    ]
    found = []
    for name, file in [*entries, *CLIP.items()]:
        path = file.expected_path(folder)
        found.append(FoundModel(name=name, file=file, path=path, found=path.is_file()))
    return found
