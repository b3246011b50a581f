"""From options to loaded models: which files, loaded once per process, and their fingerprints."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from flows.config import models_folder
from pipeline.encoding import Encoders
from pipeline.errors import WeightsError
from pipeline.models.registry import ModelSet, model_set

COLUMNS = ("clip", "w_plus", "s")
CLIP_PRES = ("official", "box7")
PRECISIONS = ("auto", "float32", "bfloat16", "float16")


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
        if not (self.models or self.clip or self.encoder or self.generator):
            wrong.append(
                "models: name a set (--models avatar) or the files (--clip, --encoder ...)"
            )
        if wrong:
            raise ValueError("; ".join(wrong))


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


def find_files(options: ModelOptions) -> ModelFiles:
    """Resolve names to files, checking that every file that the columns need is there.

    Raises:
        WeightsError: naming each missing model, where it was looked for and how to give it.

    """
    known = model_set(options.models) if options.models else ModelSet()
    folder = models_folder()
    clip_name, clip_weights = known.clip_name, known.clip_path(folder)
    clip_config = known.clip_config
    if options.clip:
        clip_name, _, weights = options.clip.partition(":")
        clip_weights = Path(weights) if weights else known.clip_path(folder, clip_name)
        clip_config = None
    files = ModelFiles(
        clip_name=clip_name,
        clip_weights=clip_weights,
        clip_config=clip_config,
        encoder=options.encoder or known.encoder_path(folder),
        generator=options.generator or known.generator_path(folder),
        neutral=known.neutral,
    )
    _check(files, options)
    return files


def _check(files: ModelFiles, options: ModelOptions) -> None:
    needed: list[tuple[str, Path | None]] = []
    if "clip" in options.columns:
        needed.append(("--clip MODEL:WEIGHTS", files.clip_weights))
    if {"w_plus", "s"} & set(options.columns):
        needed += [("--encoder", files.encoder), ("--generator", files.generator)]
    missing = [
        f"{option}: " + (f"no file {path}" if path else "not given")
        for option, path in needed
        if path is None or not path.is_file()
    ]
    if missing:
        raise WeightsError(
            "models are missing for the columns "
            f"{', '.join(options.columns)}: {'; '.join(missing)}. Put the files into "
            f"{models_folder()} (or set DELTAEDIT_MODELS), or give the options; "
            "`deltaedit doctor` lists where they come from"
        )


def choose_device(device: str) -> str:
    """``auto`` -> the first CUDA device, else the CPU.

    Raises:
        ValueError: CUDA was asked for and is not there.

    """
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"device {device}: this machine has no CUDA device; use --device cpu")
    return device


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedModels:
    """Frozen models and the digests of the files that they came from."""

    encoders: Encoders
    encoder_sha256: str | None
    generator_sha256: str | None
    neutral: str
    """The domain's neutral word for text directions."""

    def fingerprints(self, options: ModelOptions, image_source: str) -> dict[str, str]:
        """Per column, everything that determines its values, as one readable line.

        Args:
            options: the models and settings asked for.
            image_source: what is encoded: ``photo`` or ``sampled(truncation=...)``.

        """
        photo = image_source == "photo"
        generator = f"stylegan2 sha256={self.generator_sha256}"
        codes = f"e4e sha256={self.encoder_sha256}" if photo else generator
        lines = {"w_plus": f"{codes} precision=float32 images={image_source}"}
        if self.encoders.generator is not None:
            layout = self.encoders.generator.layout
            lines["s"] = f"{lines['w_plus']} affine {generator} layout={list(layout.widths)}"
        if self.encoders.clip is not None:
            clip = self.encoders.clip
            lines["clip"] = (
                f"{clip.name} sha256={clip.sha256} pre={options.clip_pre} "
                f"precision={clip.precision} images={image_source}"
            )
            if not photo:
                lines["clip"] += f" rendered by {generator}"
        return {column: lines[column] for column in options.columns}


@lru_cache(maxsize=2)
def load_models(options: ModelOptions) -> LoadedModels:
    """The frozen models, loaded once per process and shared by all its shards.

    Raises:
        WeightsError: a file is missing, damaged, or of another architecture.
        ValueError: the device is not there.

    """
    from pipeline.models.clip import load_clip
    from pipeline.models.weights import load_e4e, load_generator

    files = find_files(options)
    device = choose_device(options.device)
    clip = e4e = generator = None
    encoder_sha256 = generator_sha256 = None
    if files.clip_weights and files.clip_name and "clip" in options.columns:
        clip = load_clip(
            files.clip_name,
            files.clip_weights,
            model_config=files.clip_config,
            device=device,
            precision=options.precision,  # pyright: ignore[reportArgumentType] - checked above
        )
    if files.generator and {"w_plus", "s"} & set(options.columns):
        generator, info = load_generator(files.generator)
        generator, generator_sha256 = generator.to(device), info.sha256
        if files.encoder:
            e4e, info = load_e4e(files.encoder, generator)
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
