"""Measure edits of held-out rows, prompt by prompt: what was asked for, and what else changed."""

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flows.exits import stop_if_asked
from flows.steps.edit import EditConfig, prepare_edit
from flows.steps.edit_methods import METHODS, EditMethod, channel_std, choose_method
from flows.steps.editor import EDIT_COLUMNS, Editor, open_rows
from flows.steps.looking import TILE
from flows.steps.splits import eval_rows
from flows.steps.train import run_store
from pipeline.demo.prompts import claims_of
from pipeline.demo.reader import HIDDEN, VALUES, AttributeReader, load_reader
from pipeline.editing import apply_change, class_embedding
from pipeline.evaluation.edits import has_wanted, score_attributes, score_clip, score_codes
from pipeline.images import encode_png, to_square
from pipeline.models.registry import BUNDLED_FOLDER
from pipeline.pictures import label_grid, tradeoff

READER = BUNDLED_FOLDER / "reader.safetensors"
HIDDEN_VALUES = {name: values.index(HIDDEN) for name, values in VALUES.items() if HIDDEN in values}
POOL = 4
"""Held-out rows looked at for each row that is edited: a prompt takes those that lack what it asks
for."""
STRENGTHS = (0.5, 1.0, 1.5, 2.0, 3.0)
THRESHOLDS = (0.0, 0.03, 0.06, 0.1, 0.15)
"""Of the curves."""
SAMPLES = 4
"""Rows per prompt that are shown."""
TABLE_NAME, GRID_NAME, TRADEOFF_NAME = "edits.csv", "edits.png", "tradeoff.png"
MEANS = ("success", "preservation", "clip_score", "directional", "distance", "channels")


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoringConfig:
    """What is edited, and how."""

    prompts: tuple[str, ...]
    """Target texts."""
    num_images: int = 48
    """Held-out rows per prompt; on avatars only rows that lack what is asked for."""
    neutral: str | None = None
    """The word that the prompts differ from; default: the domain's."""
    method: str = "deltaedit"
    """deltaedit, or global: StyleCLIP's global directions from the same store."""
    strength: float = 1.0
    """Multiple of the change, the same for all prompts."""
    threshold: float | None = None
    """Least relevance of a channel that may change, the same for all prompts; None with `top_k`
    None lets all change."""
    top_k: int | None = None
    """Instead of a threshold: how many channels may change."""
    strengths: tuple[float, ...] = ()
    """Of the curves: every strength with every threshold."""
    thresholds: tuple[float, ...] = ()
    """Of the curves."""

    def __post_init__(self) -> None:
        """Check the ranges, all at once.

        Raises:
            ValueError: naming every field that is wrong.
        """
        wrong = []
        if not self.prompts or not all(prompt.strip() for prompt in self.prompts):
            wrong.append("prompts: at least one, none of them empty")
        if self.num_images < 1:
            wrong.append(f"num_images must be at least 1, got {self.num_images}")
        if self.method not in METHODS:
            wrong.append(f"method: {self.method!r} is none of {METHODS}")
        if self.threshold is not None and self.top_k is not None:
            wrong.append("threshold and top_k exclude each other")
        if bool(self.strengths) != bool(self.thresholds):
            wrong.append("strengths and thresholds of the curves come together")
        if wrong:
            raise ValueError("; ".join(wrong))


@dataclass(frozen=True, slots=True)
class EditScores:
    """The figures of every prompt, and some pictures."""

    prompts: list[dict[str, object]]
    """One row a prompt."""
    mean: dict[str, float]
    """Over prompts; success over those that the reader knows."""
    curve: list[dict[str, float]]
    """One row for each strength and threshold."""
    samples: dict[str, tuple[np.ndarray, np.ndarray]]
    """Prompt -> reconstructions and edits [K, H, W, 3] uint8 of its first rows."""


class EditScorer:
    """The models, rows and readings that all prompts of an evaluation share."""

    def __init__(self, run: Path, config: ScoringConfig) -> None:
        """Load the models, render and read the pool of held-out rows.

        Raises:
            CheckpointError: there is no finished run.
            StoreError: its store is gone, lacks a column, or holds out too few rows.
            PipelineError: a mask is wanted and there is no relevance matrix.
        """
        store = open_rows(run_store(run))
        rows = eval_rows(store)[: POOL * config.num_images]
        key = store.keys[rows[0]]
        parts = prepare_edit(EditConfig(run=run, texts=config.prompts, keys=(key,)))
        self._config = config
        self._editor = Editor(parts)
        self._codes = store.rows(rows, EDIT_COLUMNS)
        self._std = channel_std(store)
        self._method: EditMethod = choose_method(config.method, self._editor, self._std)
        # The reader knows avatars of the bundled world and nothing else.
        is_avatar = parts.options.models == "avatar" and READER.is_file()
        self._reader: AttributeReader | None = load_reader(READER) if is_avatar else None
        self._pictures = self._editor.render(self._codes["s"], self._codes["w_plus"])
        self._before = self._read(self._pictures)
        self._embedded = self._embed(self._pictures)

    def score(
        self, on_progress: Callable[[int, int], None] = lambda _done, _all: None
    ) -> EditScores:
        """Edit and measure every prompt."""
        config = self._config
        rows, samples = [], {}
        sums: dict[tuple[float, float], list[dict[str, float]]] = {}
        for number, prompt in enumerate(config.prompts, start=1):
            work = self._prepare(prompt)
            mask = work.mask(config.threshold, config.top_k)
            scores, pictures = self._measure(work, config.strength, mask)
            rows.append({"prompt": prompt, "rows": len(work.chosen), **scores})
            samples[prompt] = self._pictures[work.chosen[:SAMPLES]], pictures[:SAMPLES]
            for strength in config.strengths:
                for threshold in config.thresholds:
                    scores, _ = self._measure(work, strength, work.mask(threshold, None))
                    sums.setdefault((strength, threshold), []).append(scores)
            stop_if_asked()
            on_progress(number, len(config.prompts))
        curve = [
            {"strength": strength, "threshold": threshold, **_means(scores)}
            for (strength, threshold), scores in sums.items()
        ]
        return EditScores(rows, _means(rows), curve, samples)

    def _prepare(self, prompt: str) -> "_Prompt":
        direction = self._editor.direction(prompt, self._config.neutral)
        claims = claims_of(prompt) if self._reader is not None else {}
        wanted = {name: [VALUES[name].index(v) for v in fits] for name, fits in claims.items()}
        chosen = np.arange(len(self._pictures))
        if wanted:
            chosen = chosen[~has_wanted(self._before, wanted)]
        chosen = chosen[: self._config.num_images]
        codes = {name: values[chosen] for name, values in self._codes.items()}
        return _Prompt(
            chosen=chosen,
            codes=codes,
            wanted=wanted,
            change=self._method.change(codes, direction),
            mask=lambda threshold, top_k: self._method.mask(direction, threshold, top_k),
            target=class_embedding(self._editor.clip, prompt).cpu().numpy(),
            direction=direction.raw.cpu().numpy(),
        )

    def _measure(
        self, work: "_Prompt", strength: float, mask: np.ndarray | None
    ) -> tuple[dict[str, float], np.ndarray]:
        if not len(work.chosen):
            return {}, self._pictures[:0]
        edited = apply_change(work.codes["s"], work.change, mask, strength)
        pictures = self._editor.render(edited, work.codes["w_plus"])
        scores: dict[str, float] = {}
        if self._reader is not None:
            before = {name: values[work.chosen] for name, values in self._before.items()}
            seen = score_attributes(before, self._read(pictures), work.wanted, hidden=HIDDEN_VALUES)
            scores |= {"success": seen.success, "preservation": seen.preservation}
        embedded = self._embed(pictures)
        look = score_clip(self._embedded[work.chosen], embedded, work.target, work.direction)
        moved = score_codes(work.codes["s"], edited, self._std)
        scores |= {**look._asdict(), **moved._asdict()}
        return {name: round(float(value), 4) for name, value in scores.items()}, pictures

    def _read(self, pictures: np.ndarray) -> dict[str, np.ndarray]:
        if self._reader is None:
            return {}
        return {name: values.numpy() for name, values in self._reader.read(pictures).items()}

    def _embed(self, pictures: np.ndarray) -> np.ndarray:
        return self._editor.clip.encode_images(pictures, "official").cpu().numpy()


@dataclass(frozen=True, kw_only=True, slots=True)
class _Prompt:
    """What all strengths and thresholds of one prompt share."""

    chosen: np.ndarray
    codes: dict[str, np.ndarray]
    wanted: Mapping[str, Sequence[int]]
    change: np.ndarray
    mask: Callable[[float | None, int | None], np.ndarray | None]
    target: np.ndarray
    direction: np.ndarray


def draw_scores(scores: EditScores) -> dict[str, bytes]:
    """Files that show the scores: a table (CSV), edits of a few rows, and the trade-off (PNG)."""
    files = {TABLE_NAME: _table(scores).encode(), GRID_NAME: encode_png(_grid(scores))}
    if scores.curve and "success" in scores.curve[0]:
        series = {
            f"threshold {threshold:g}": [
                (row["preservation"], row["success"], f"{row['strength']:g}")
                for row in scores.curve
                if row["threshold"] == threshold
            ]
            for threshold in sorted({row["threshold"] for row in scores.curve})
        }
        files[TRADEOFF_NAME] = tradeoff(
            series,
            title="Edits over all prompts; the figures at the points are strengths",
            x_label="preservation of other attributes",
            y_label="success",
        )
    return files


def _table(scores: EditScores) -> str:
    names = list(dict.fromkeys(name for row in scores.prompts for name in row))
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, names)
    writer.writeheader()
    writer.writerows(scores.prompts)
    writer.writerow({"prompt": "mean", **scores.mean})
    return buffer.getvalue()


def _grid(scores: EditScores) -> np.ndarray:
    """A row a prompt: pairs of reconstruction and edit."""
    rows = []
    blank = np.full((TILE, TILE, 3), 255, dtype=np.uint8)
    for before, after in scores.samples.values():
        pairs = zip(before[:SAMPLES], after[:SAMPLES], strict=True)
        tiles = [to_square(picture, TILE) for pair in pairs for picture in pair]
        rows.append(tiles + [blank] * (2 * SAMPLES - len(tiles)))
    return label_grid(
        rows, row_labels=list(scores.samples), column_labels=["before", "after"] * SAMPLES
    )


def _means(rows: Iterable[Mapping[str, object]]) -> dict[str, float]:
    """Means over prompts of what there is; a prompt without a value does not count."""
    found: dict[str, float] = {}
    rows = list(rows)
    for name in MEANS:
        values = [float(value) for row in rows if isinstance(value := row.get(name), float)]
        values = [value for value in values if not np.isnan(value)]
        if values:
            found[name] = round(float(np.mean(values)), 4)
    return found
