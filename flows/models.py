"""From options to loaded models: which files, loaded once per process, and their fingerprints."""

import re
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from flows.config import models_folder
from pipeline.errors import PipelineError, WeightsError
from pipeline.models.registry import BUNDLED_FOLDER, ModelSet, model_set

if TYPE_CHECKING:
    # The trainer reads a store's `ModelOptions` and must not load the models' own modules.
    from pipeline.encoding import Encoders
    from pipeline.models.clip import ClipModel

COLUMNS = ("clip", "w_plus", "s")
CLIP_PRES = ("official", "box7")
PHOTO = "photo"
"""Image source of a store whose images were read from files."""
NVJPEG = "nvjpeg"
JPEG_DECODERS = ("libjpeg", NVJPEG)
PRECISIONS = ("auto", "float32", "bfloat16", "float16")
E4E_PRECISIONS = PRECISIONS[1:]
DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelOptions:
    """Which models encode images, as the user names them."""

    models: str | None = None
    """A registered set (`avatar` is the bundled world); single options override its members."""
    clip: str | None = None
    """``MODEL`` or ``MODEL:WEIGHTS``: an open_clip model name and a local weights file."""
    encoder: Path | None = None
    """An e4e checkpoint."""
    generator: Path | None = None
    """A StyleGAN2 checkpoint."""
    columns: tuple[str, ...] = COLUMNS
    """Columns to compute."""
    clip_pre: str = "official"
    """CLIP image pre-processing: official or box7."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:i."""
    precision: str = "auto"
    """Precision of the CLIP image tower: auto, float32, bfloat16 or float16."""
    e4e_precision: str = "float32"
    """Precision of e4e: float32, bfloat16 or float16. Half precision costs about 1 % of a code."""

    def __post_init__(self) -> None:
        """Check the names, all at once.

        Raises:
            ValueError: naming every option that is wrong.

        """
        wrong = [f"columns: {c!r} is none of {COLUMNS}" for c in self.columns if c not in COLUMNS]
        if not self.columns:
            wrong.append(f"columns: none given; choose from {COLUMNS}")
        if self.clip_pre not in CLIP_PRES:
            wrong.append(f"clip_pre: {self.clip_pre!r} is none of {CLIP_PRES}")
        if self.precision not in PRECISIONS:
            wrong.append(f"precision: {self.precision!r} is none of {PRECISIONS}")
        if self.e4e_precision not in E4E_PRECISIONS:
            wrong.append(f"e4e_precision: {self.e4e_precision!r} is none of {E4E_PRECISIONS}")
        if not DEVICE.fullmatch(self.device):
            wrong.append(f"device: {self.device!r} is none of auto, cpu, cuda, cuda:0, cuda:1 ...")
        if not (self.models or self.clip or self.encoder or self.generator):
            wrong.append(
                "models: name a set (--models avatar) or the files (--clip, --encoder ...)"
            )
        if wrong:
            raise ValueError("; ".join(wrong))

    def needed(self, *, sampled: bool) -> frozenset[str]:
        """The kinds of model that the columns take: clip, encoder, generator.

        Args:
            sampled: whether images are drawn by the generator instead of read.
        """
        codes = bool({"w_plus", "s"} & set(self.columns))
        # box7 shows CLIP what e4e sees, so it asks for e4e even where no code is wanted.
        inverts = not sampled and (codes or self.clip_pre == "box7")
        kinds = {"clip"} if "clip" in self.columns else set()
        kinds |= {"encoder"} if inverts else set()
        return frozenset(kinds | ({"generator"} if codes or sampled or inverts else set()))


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelFiles:
    """The files behind a `ModelOptions`."""

    clip_name: str | None
    clip_weights: Path | None
    clip_config: Path | None
    encoder: Path | None
    generator: Path | None
    neutral: str
    """The domain's neutral word for text directions."""


def find_files(options: ModelOptions, *, sampled: bool = False) -> ModelFiles:
    """Resolve names to files, checking that every file that the columns need is there.

    Args:
        options: models as the user names them.
        sampled: whether images are drawn by the generator instead of read.

    Raises:
        WeightsError: naming each missing model, where it was looked for and how to give it.
    """
    known = model_set(options.models) if options.models else ModelSet()
    folder = models_folder()
    clip_name, clip_weights = known.clip_name, known.clip_path(folder)
    if options.clip:
        clip_name, _, weights = options.clip.partition(":")
        clip_weights = Path(weights) if weights else known.clip_path(folder, clip_name)
    files = ModelFiles(
        clip_name=clip_name,
        clip_weights=clip_weights,
        clip_config=known.clip_config if clip_name == known.clip_name else None,
        encoder=options.encoder or known.encoder_path(folder),
        generator=options.generator or known.generator_path(folder),
        neutral=known.neutral,
    )
    _check(files, options, sampled=sampled)
    return files


def _check(files: ModelFiles, options: ModelOptions, *, sampled: bool) -> None:
    given = {
        "clip": ("--clip MODEL:WEIGHTS", files.clip_weights),
        "encoder": ("--encoder", files.encoder),
        "generator": ("--generator", files.generator),
    }
    needed = options.needed(sampled=sampled)
    missing = [
        f"{option}: " + (f"no file {path}" if path else "not given")
        for kind, (option, path) in given.items()
        if kind in needed and (path is None or not path.is_file())
    ]
    if missing:
        raise WeightsError(
            "models are missing for the columns "
            f"{', '.join(options.columns)}: {'; '.join(missing)}. Put the files into "
            f"{models_folder()} (or set DELTAEDIT_MODELS), or give the options; "
            "`deltaedit doctor` lists where they come from"
        )


def pinned(options: ModelOptions, *, sampled: bool = False) -> ModelOptions:
    """The same models by absolute paths, for processes with another folder and environment.

    Bundled models keep their name: each process has them beside its own package.

    Raises:
        WeightsError: a model is missing.
    """
    files = find_files(options, sampled=sampled)

    def elsewhere(path: Path | None) -> Path | None:
        return None if path is None or path.is_relative_to(BUNDLED_FOLDER) else path.absolute()

    clip_weights = elsewhere(files.clip_weights)
    return replace(
        options,
        clip=f"{files.clip_name}:{clip_weights}" if clip_weights else options.clip,
        encoder=elsewhere(files.encoder) or options.encoder,
        generator=elsewhere(files.generator) or options.generator,
    )


def choose_device(device: str) -> str:
    """``auto`` -> the first CUDA device, else the CPU.

    Raises:
        PipelineError: there is no such kind of device, or a CUDA device that is not there.
    """
    import torch

    if not DEVICE.fullmatch(device):
        raise PipelineError(f"device {device!r} is none of auto, cpu, cuda, cuda:0, cuda:1 ...")
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda"):
        number = int(device.partition(":")[2] or 0)
        if number >= torch.cuda.device_count():
            raise PipelineError(
                f"device {device}: this machine has {torch.cuda.device_count()} CUDA devices; "
                "use --device auto or --device cpu"
            )
    return device


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedModels:
    """Frozen models and the digests of the files that they came from."""

    encoders: "Encoders"
    encoder_sha256: str | None
    generator_sha256: str | None
    neutral: str
    """The domain's neutral word for text directions."""

    def fingerprints(self, options: ModelOptions, image_source: str) -> dict[str, str]:
        """Per column, everything that determines its values, as one readable line.

        Args:
            options: the models and settings asked for.
            image_source: what is encoded: ``photo``, ``photo(nvjpeg)`` or
                ``sampled(truncation=...)``.

        """
        encoders = self.encoders
        generator = f"stylegan2 sha256={self.generator_sha256}"
        codes, precision = generator, "float32"
        is_read = image_source.startswith(PHOTO)
        if is_read and encoders.e4e is not None:
            # An e4e file without average latent takes the generator's.
            codes = f"e4e sha256={self.encoder_sha256} for {generator}"
            precision = encoders.e4e.precision
        lines = {"w_plus": f"{codes} precision={precision} images={image_source}"}
        if encoders.generator is not None:
            layout = encoders.generator.layout
            lines["s"] = f"{lines['w_plus']} affine {generator} layout={list(layout.widths)}"
        if encoders.clip is not None:
            clip = encoders.clip
            lines["clip"] = (
                f"{clip.name} sha256={clip.sha256} pre={options.clip_pre} "
                f"precision={clip.precision} images={image_source}"
            )
            if not is_read:
                lines["clip"] += f" rendered by {generator}"
            elif options.clip_pre == "box7" and encoders.e4e is not None:
                seen = encoders.e4e.encoder.config
                lines["clip"] += f" fitted to {seen.input_height} x {seen.input_width} px"
        return {column: lines[column] for column in options.columns}


def load_models(
    options: ModelOptions, *, sampled: bool = False, texts: bool = False
) -> LoadedModels:
    """The frozen models, loaded once per process and shared by all its shards.

    Args:
        options: models as the user names them.
        sampled: whether images are drawn by the generator instead of read; no encoder is then
            needed.
        texts: whether CLIP's text tower is needed too; it takes about half of a model's memory.

    Raises:
        WeightsError: a file is missing, damaged, or of another architecture.
        PipelineError: the device is not there.
    """
    return _load(options, sampled, texts)


@lru_cache(maxsize=2)
def _load(options: ModelOptions, sampled: bool, texts: bool) -> LoadedModels:  # noqa: FBT001 - a cache key
    from pipeline.encoding import Encoders
    from pipeline.models.weights import load_e4e, load_generator

    files = find_files(options, sampled=sampled)
    needed = options.needed(sampled=sampled)
    device = choose_device(options.device)
    clip = _load_clip(files, options, device, texts=texts) if "clip" in needed else None
    e4e = generator = encoder_sha256 = generator_sha256 = None
    if "generator" in needed and files.generator is not None:
        generator, info = load_generator(files.generator)
        generator, generator_sha256 = generator.to(device), info.sha256
        if "encoder" in needed and files.encoder is not None:
            e4e, info = load_e4e(files.encoder, generator, precision=options.e4e_precision)
            e4e, encoder_sha256 = e4e.to(device), info.sha256
    return LoadedModels(
        encoders=Encoders(
            clip=clip,
            e4e=e4e,
            generator=generator,
            clip_pre=options.clip_pre,  # pyright: ignore[reportArgumentType] - checked above
        ),
        encoder_sha256=encoder_sha256,
        generator_sha256=generator_sha256,
        neutral=files.neutral,
    )


def _load_clip(
    files: ModelFiles, options: ModelOptions, device: str, *, texts: bool
) -> "ClipModel":
    from pipeline.models.clip import load_clip

    assert files.clip_name is not None
    assert files.clip_weights is not None
    return load_clip(
        files.clip_name,
        files.clip_weights,
        model_config=files.clip_config,
        device=device,
        precision=options.precision,  # pyright: ignore[reportArgumentType] - checked above
        texts=texts,
    )
