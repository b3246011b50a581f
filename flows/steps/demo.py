"""The whole pipeline on the avatar world, in the order of a user's day."""

import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from flows.config import num_cpus
from flows.models import ModelOptions, load_models
from flows.steps.alignment import ALIGNMENT_NAME, AlignmentResult, align
from flows.steps.avatars import ATTRIBUTES, write_avatars
from flows.steps.edit import EditConfig, edit
from flows.steps.evaluate import EvaluateConfig, evaluate
from flows.steps.index import IndexConfig, find_neighbours, index_store, query_vector
from flows.steps.looking import StorePictures
from flows.steps.pairs import draw_pairs
from flows.steps.precompute import PrecomputeConfig, PrecomputeSummary, precompute
from flows.steps.progress import Progress
from flows.steps.relevance import RelevanceRun, estimate_relevance
from flows.steps.report import ReportPicture, Section, store_section, write_report
from flows.steps.sheets import neighbour_sheet, pair_sheet, write_picture
from flows.steps.train import CURVE_NAME, TrainRun, train
from pipeline.pairs import PairConfig
from pipeline.pictures import label_grid
from pipeline.training import Record, TrainConfig
from stores.places import StorePath
from stores.reader import StoreReader

log = logging.getLogger("deltaedit")

PROMPTS = (
    "face with sunglasses",
    "face with eyeglasses",
    "face with a hat",
    "face with a long beard",
    "face with blond hair",
    "face with red hair",
    "face with curly hair",
    "bald face",
    "smiling face",
    "face with dark skin",
)
QUERIES = ("face with sunglasses", "face with a long beard", "bald smiling face")
NUM_SHOWN = 8
NUM_ALIGNED = 600


@dataclass(frozen=True, kw_only=True, slots=True)
class DemoConfig:
    """One demo."""

    out: Path
    """Folder for everything that the demo makes."""
    num_images: int = 6000
    """Avatars to render and encode."""
    seed: int = 0
    """Seed of the avatars; the bundled models were trained on other seeds."""
    strength: float = 0.8
    """Strength of the edits; docs/evaluation.md has the curves it was chosen from."""
    threshold: float = 0.0
    """Relevance threshold of the edits; 0 lets every channel change."""
    training: TrainConfig = field(default_factory=TrainConfig)
    """How the Delta Mapper is trained."""

    @property
    def images(self) -> Path:
        """The avatars."""
        return self.out / "avatars"

    @property
    def store(self) -> Path:
        """Their vectors."""
        return self.out / "avatars.store"

    @property
    def run(self) -> Path:
        """The trained mapper."""
        return self.out / "run"


def demo(config: DemoConfig) -> list[Path]:
    """Run everything; steps that an interrupted demo finished are not done again.

    Returns:
        The pictures and the report, in the order they were made.
    """
    paths = {
        name: config.out / f"{name}.png"
        for name in ("reconstructions", "neighbours", "pairs", "edits")
    } | {"alignment": config.out / ALIGNMENT_NAME, "loss": config.run / CURVE_NAME}
    with _step("render avatars"):
        _render(config)
    with _step("precompute CLIP, W+ and S codes"):
        summary = _precompute(config)
    with _step("index, neighbours and pairs"):
        index_store(IndexConfig(store=config.store, neighbours=16))
        _look(config, paths)
    with _step("relevance matrix"):
        estimate_relevance(RelevanceRun(store=config.store))
    with _step("train the Delta Mapper, without text and without rendering"):
        _train(config)
    with _step("evaluate on held-out avatars"):
        fit = evaluate(EvaluateConfig(run=config.run, out=config.run))
        aligned = align_captions(config.store, config.images)
        paths["alignment"].write_bytes(aligned.picture())
    with _step("edit held-out avatars by text"):
        edits = edit(edit_config(config))
        write_picture(paths["edits"], edits.grid)
    report = _report(config, paths, summary, fit, aligned, edits.table)
    return [*(paths[name] for name in _ORDER), report]


_ORDER = ("edits", "reconstructions", "neighbours", "pairs", "loss", "alignment")
_CAPTIONS = {
    "edits": "Held-out avatars, their reconstructions, and edits by text alone. The mapper never "
    "saw a text.",
    "reconstructions": "Held-out avatars above, what the generator makes of their W+ codes below.",
    "neighbours": "Nearest avatars in CLIP space to three texts.",
    "pairs": "Pairs that training learns from (policy nearest here; training draws random ones).",
    "loss": "Error on held-out pairs while training; 1 is what predicting no change gives.",
    "alignment": "Images and captions in CLIP space, and their differences in delta space.",
}


@contextmanager
def _step(title: str) -> Iterator[None]:
    begin = time.monotonic()
    log.info("%s ...", title)
    yield
    log.info("%s: %.0f s", title, time.monotonic() - begin)


def _render(config: DemoConfig) -> None:
    listing = config.images / ATTRIBUTES
    if listing.exists() and len(listing.read_text().splitlines()) == config.num_images:
        return
    with Progress("avatars", config.num_images, unit="images") as progress:
        write_avatars(
            config.images,
            count=config.num_images,
            seed=config.seed,
            num_workers=num_cpus(),
            on_progress=progress.advance,
        )


def _precompute(config: DemoConfig) -> PrecomputeSummary:
    with Progress("precompute", config.num_images, unit="images") as progress:
        return precompute(
            PrecomputeConfig(
                sources=(str(config.images),),
                store=config.store,
                models=ModelOptions(models="avatar"),
            ),
            lambda done, _all: progress.advance(done - progress.done),
        )


def _look(config: DemoConfig, paths: dict[str, Path]) -> None:
    pictures = StorePictures(config.store)
    keys = held_out_keys(pictures.reader)
    sheet = label_grid(
        [pictures.of_keys(keys), pictures.reconstruct(keys)],
        row_labels=["original", "reconstruction"],
        column_labels=keys,
    )
    write_picture(paths["reconstructions"], sheet)
    answers = [
        (text, find_neighbours(config.store, query_vector(config.store, text=text), NUM_SHOWN))
        for text in QUERIES
    ]
    write_picture(paths["neighbours"], neighbour_sheet(config.store, answers))
    pairs = draw_pairs(config.store, PairConfig(policy="nearest", seed=config.seed), 12)
    write_picture(paths["pairs"], pair_sheet(config.store, pairs))


def held_out_keys(reader: StoreReader, count: int = NUM_SHOWN) -> list[str]:
    """The first `count` keys of the held-out split."""
    return [str(key) for key in np.asarray(reader.keys)[reader.eval_mask][:count]]


def edit_config(config: DemoConfig) -> EditConfig:
    """The demo's grid of edits: held-out avatars as image files, all prompts."""
    keys = held_out_keys(StoreReader(config.store))
    return EditConfig(
        run=config.run,
        texts=PROMPTS,
        images=tuple(config.images / key for key in keys),
        strength=config.strength,
        threshold=config.threshold,
    )


def _train(config: DemoConfig) -> None:
    run = TrainRun(store=config.store, run=config.run, resume=True, training=config.training)

    def show(record: Record) -> None:
        if "eval/scaled/all/explained" in record:
            log.info(
                "step %d: %.1f %% of the held-out S difference explained",
                record["step"],
                100 * record["eval/scaled/all/explained"],
            )

    train(run, show)


def align_captions(store: StorePath, images: Path) -> AlignmentResult:
    """Alignment of held-out avatars with their captions."""
    editor_models = load_models(ModelOptions(models="avatar"), texts=True)
    clip = editor_models.encoders.clip
    assert clip is not None
    reader = StoreReader(store)
    rows = np.flatnonzero(reader.eval_mask)[:NUM_ALIGNED]
    records = (json.loads(line) for line in (images / ATTRIBUTES).read_text().splitlines())
    captions = {record["key"]: record["caption"] for record in records}
    texts = [captions[str(reader.keys[row])] for row in rows]
    return align(reader.rows(rows, ["clip"])["clip"], clip.encode_texts(texts).cpu().numpy())


def _report(
    config: DemoConfig,
    paths: dict[str, Path],
    summary: PrecomputeSummary,
    fit: dict[str, object],
    aligned: AlignmentResult,
    edits: list[dict[str, object]],
) -> Path:
    def picture(name: str) -> ReportPicture:
        return ReportPicture(paths[name].read_bytes(), _CAPTIONS[name])

    channels = {str(row["text"]): f"{row['channels']} channels let through" for row in edits}
    speed = {"images per second": round(summary.images_per_s, 1), **summary.stage_seconds}
    sections = [
        Section(title="Edits by text", table=channels, pictures=[picture("edits")]),
        Section(title="Reconstructions", pictures=[picture("reconstructions")]),
        Section(title="Neighbours and pairs", pictures=[picture("neighbours"), picture("pairs")]),
        Section(title="Training", table=fit, pictures=[picture("loss")]),
        Section(
            title="CLIP space and delta space",
            table=aligned.as_dict(),
            pictures=[picture("alignment")],
        ),
        store_section(config.store),
        Section(title="Precompute: seconds per stage", table=speed),
    ]
    return write_report(
        config.out,
        title="Avatars, edited by text",
        lead=f"{summary.rows} avatars, encoded once; a Delta Mapper trained from the cached "
        "vectors, without text; then driven by text.",
        sections=sections,
    )
