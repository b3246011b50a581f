"""The held-out rows that edits are measured on, with the models and readings they share."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flows.steps.edit import EditConfig, prepare_edit
from flows.steps.edit_methods import EditMethod, channel_std
from flows.steps.editor import EDIT_COLUMNS, Editor, open_rows
from flows.steps.looking import StorePictures
from flows.steps.splits import eval_rows
from flows.steps.train import run_store
from pipeline.demo.prompts import claims_of
from pipeline.demo.reader import HIDDEN, VALUES, AttributeReader, load_reader
from pipeline.editing import Direction, apply_change, class_embedding
from pipeline.evaluation.edits import has_wanted, score_attributes, score_clip, score_codes
from pipeline.evaluation.reconstruction import score_reconstructions
from pipeline.images import to_square
from pipeline.models.registry import BUNDLED_FOLDER

READER = BUNDLED_FOLDER / "reader.safetensors"
HIDDEN_VALUES = {name: values.index(HIDDEN) for name, values in VALUES.items() if HIDDEN in values}
POOL = 4
"""Held-out rows looked at for each row that is edited: a prompt takes those that lack what it asks
for."""


@dataclass(frozen=True, slots=True)
class Setting:
    """How strongly an edit is applied, and to which channels."""

    strength: float
    """Multiple of the change."""
    threshold: float | None = None
    """Least relevance of a channel that may change; None with `top_k` None lets all change."""
    top_k: int | None = None
    """Instead of a threshold: how many channels may change."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """One prompt, whatever the method: what it asks for, and the rows that lack it."""

    wanted: Mapping[str, Sequence[int]]
    """Attribute -> numbers of the values that fulfil the prompt; empty where no reader knows."""
    chosen: np.ndarray
    """Numbers of rows of the pool, [N] int64."""
    direction: Direction
    """In CLIP space."""
    target: np.ndarray
    """Embedding of the prompt, [C] float32."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PreparedEdit:
    """One prompt by one method, before strength and mask are chosen."""

    request: Request
    """The prompt."""
    codes: dict[str, np.ndarray]
    """Columns clip, w_plus and s of its rows."""
    change: np.ndarray
    """Of s, [N, S] float32."""
    mask: Callable[[float | None, int | None], np.ndarray | None]
    """Threshold and top_k -> channels that may change."""


class EditPool:
    """Held-out rows of a run's store: rendered, read and embedded once for all edits."""

    def __init__(
        self, run: Path, prompts: Sequence[str], *, num_images: int, neutral: str | None = None
    ) -> None:
        """Load the models, and render and read the rows.

        Args:
            run: a finished run; its mapper is the editor's.
            prompts: what will be asked for.
            num_images: rows per prompt.
            neutral: the word that the prompts differ from; default: the domain's.

        Raises:
            CheckpointError: there is no finished run.
            StoreError: its store is gone, lacks a column, or holds out too few rows.
        """
        store = open_rows(run_store(run))
        rows = eval_rows(store)[: POOL * num_images]
        self._keys = [store.keys[row] for row in rows]
        parts = prepare_edit(EditConfig(run=run, texts=tuple(prompts), keys=(self._keys[0],)))
        self._num_images, self._neutral = num_images, neutral
        self.editor = Editor(parts)
        self.std = channel_std(store)
        self._store = store.path
        self._codes = store.rows(rows, EDIT_COLUMNS)
        # The reader knows avatars of the bundled world and nothing else.
        is_avatar = parts.options.models == "avatar" and READER.is_file()
        self._reader: AttributeReader | None = load_reader(READER) if is_avatar else None
        self.pictures = self.editor.render(self._codes["s"], self._codes["w_plus"])
        self._before = self._read(self.pictures)
        self._embedded = self._embed(self.pictures)
        self._requests: dict[str, Request] = {}

    @property
    def reads_attributes(self) -> bool:
        """Whether success and preservation can be told."""
        return self._reader is not None

    def request(self, prompt: str) -> Request:
        """What a prompt asks for, and up to `num_images` rows that lack it."""
        if prompt not in self._requests:
            claims = claims_of(prompt) if self._reader is not None else {}
            wanted = {name: [VALUES[name].index(v) for v in fits] for name, fits in claims.items()}
            chosen = np.arange(len(self.pictures))
            if wanted:
                chosen = chosen[~has_wanted(self._before, wanted)]
            self._requests[prompt] = Request(
                wanted=wanted,
                chosen=chosen[: self._num_images],
                direction=self.editor.direction(prompt, self._neutral),
                target=class_embedding(self.editor.clip, prompt).cpu().numpy(),
            )
        return self._requests[prompt]

    def prepare(self, prompt: str, method: EditMethod) -> PreparedEdit:
        """The change that a method makes for a prompt."""
        request = self.request(prompt)
        codes = {name: values[request.chosen] for name, values in self._codes.items()}
        return PreparedEdit(
            request=request,
            codes=codes,
            change=method.change(codes, request.direction),
            mask=lambda threshold, top_k: method.mask(request.direction, threshold, top_k),
        )

    def measure(self, edit: PreparedEdit, setting: Setting) -> tuple[dict[str, float], np.ndarray]:
        """The figures of one edit, those that there are, and its pictures [N, H, W, 3] uint8.

        Raises:
            PipelineError: a mask is wanted and there is no relevance matrix.
        """
        chosen, wanted = edit.request.chosen, edit.request.wanted
        if not len(chosen):
            return {}, self.pictures[:0]
        mask = edit.mask(setting.threshold, setting.top_k)
        edited = apply_change(edit.codes["s"], edit.change, mask, setting.strength)
        pictures = self.editor.render(edited, edit.codes["w_plus"])
        scores: dict[str, float] = {}
        if self._reader is not None:
            before = {name: values[chosen] for name, values in self._before.items()}
            seen = score_attributes(before, self._read(pictures), wanted, hidden=HIDDEN_VALUES)
            scores |= {"success": seen.success, "preservation": seen.preservation}
        direction = edit.request.direction.raw.cpu().numpy()
        embedded = self._embed(pictures)
        look = score_clip(self._embedded[chosen], embedded, edit.request.target, direction)
        scores |= {**look._asdict(), **score_codes(edit.codes["s"], edited, self.std)._asdict()}
        found = {name: round(float(value), 4) for name, value in scores.items()}
        return {name: value for name, value in found.items() if not np.isnan(value)}, pictures

    def reconstruction(self) -> dict[str, float]:
        """What is lost before any edit: originals against what their codes give back.

        Returns:
            PSNR in dB, the cosine of the CLIP embeddings, and on avatars the share of attribute
            values that are read alike; empty where the originals are gone.
        """
        sources = StorePictures(self._store)
        found = {number: sources.original(key) for number, key in enumerate(self._keys)}
        size = self.pictures.shape[1]
        tiles = {n: to_square(picture, size) for n, picture in found.items() if picture is not None}
        if not tiles:
            return {}
        kept, originals = list(tiles), np.stack(list(tiles.values()))
        scores = {"PSNR, dB": score_reconstructions(originals, self.pictures[kept])}
        first, second = self._embed(originals), self._embedded[kept]
        lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
        scores["CLIP cosine"] = float((np.vecdot(first, second) / lengths).mean())
        if self._reader is not None:
            read = self._read(originals)
            same = [(read[name] == self._before[name][kept]).mean() for name in read]
            scores["attributes kept"] = float(np.mean(same))
        return {name: round(value, 4) for name, value in scores.items()}

    def _read(self, pictures: np.ndarray) -> dict[str, np.ndarray]:
        if self._reader is None:
            return {}
        return {name: values.numpy() for name, values in self._reader.read(pictures).items()}

    def _embed(self, pictures: np.ndarray) -> np.ndarray:
        return self.editor.clip.encode_images(pictures, "official").cpu().numpy()
