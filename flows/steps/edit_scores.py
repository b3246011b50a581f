"""Measure edits of held-out rows, prompt by prompt: what was asked for, and what else changed."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from flows.exits import stop_if_asked
from flows.steps.edit_methods import METHODS, EditMethod
from flows.steps.edit_pool import EditPool, Setting

STRENGTHS = (0.5, 1.0, 1.5, 2.0, 3.0)
THRESHOLDS = (0.0, 0.03, 0.06, 0.1, 0.15)
"""Of the curves."""
SAMPLES = 4
"""Rows per prompt that are shown."""
MEANS = ("success", "preservation", "clip_score", "directional", "distance", "channels")
OnPrompt = Callable[[], None]
"""Called after every prompt."""


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
    compare: tuple[str, ...] = ()
    """Other ways to edit, measured on the same rows where they preserve as much: `global`, or the
    folder of another run of the same store."""

    def __post_init__(self) -> None:
        """Check the ranges, all at once.

        Raises:
            ValueError: naming every field that is wrong.
        """
        wrong = []
        if not self.prompts or not all(prompt.strip() for prompt in self.prompts):
            wrong.append("prompts: at least one, none of them empty")
        twice = sorted({prompt for prompt in self.prompts if self.prompts.count(prompt) > 1})
        if twice:
            wrong.append(f"prompts: {', '.join(twice)} stands there twice")
        if self.num_images < 1:
            wrong.append(f"num_images must be at least 1, got {self.num_images}")
        if self.method not in METHODS:
            wrong.append(f"method: {self.method!r} is none of {METHODS}")
        if self.threshold is not None and self.top_k is not None:
            wrong.append("threshold and top_k exclude each other")
        if bool(self.strengths) != bool(self.thresholds):
            wrong.append("strengths and thresholds of the curves come together")
        if self.compare and not self.strengths:
            wrong.append("compare needs the strengths and thresholds of the curves")
        if wrong:
            raise ValueError("; ".join(wrong))

    @property
    def setting(self) -> Setting:
        """The one of all prompts."""
        return Setting(self.strength, self.threshold, self.top_k)


@dataclass(frozen=True, slots=True)
class EditScores:
    """The figures of every prompt, and some pictures."""

    prompts: list[dict[str, object]]
    """One row a prompt."""
    mean: dict[str, float]
    """Over prompts; success over those that the reader knows."""
    samples: dict[str, tuple[np.ndarray, np.ndarray]]
    """Prompt -> reconstructions and edits [K, H, W, 3] uint8 of its first rows."""


def score_prompts(
    pool: EditPool,
    method: EditMethod,
    prompts: Sequence[str],
    setting: Setting,
    on_prompt: OnPrompt = lambda: None,
) -> EditScores:
    """Edit by every prompt with one setting, and measure."""
    rows: list[dict[str, object]] = []
    samples = {}
    for prompt in prompts:
        edit = pool.prepare(prompt, method)
        scores, pictures = pool.measure(edit, setting)
        chosen = edit.request.chosen
        rows.append({"prompt": prompt, "rows": len(chosen), **scores})
        samples[prompt] = pool.pictures[chosen[:SAMPLES]], pictures[:SAMPLES]
        stop_if_asked()
        on_prompt()
    return EditScores(rows, means(rows), samples)


def score_grid(
    pool: EditPool,
    method: EditMethod,
    prompts: Sequence[str],
    settings: Sequence[Setting],
    on_prompt: OnPrompt = lambda: None,
) -> list[dict[str, float]]:
    """Means over prompts for each of many settings: one row a setting."""
    found: list[list[dict[str, float]]] = [[] for _ in settings]
    for prompt in prompts:
        edit = pool.prepare(prompt, method)
        for scores, setting in zip(found, settings, strict=True):
            scores.append(pool.measure(edit, setting)[0])
            stop_if_asked()
        on_prompt()
    return [
        {"strength": setting.strength, "threshold": setting.threshold or 0.0, **means(scores)}
        for scores, setting in zip(found, settings, strict=True)
    ]


def means(rows: Iterable[Mapping[str, object]]) -> dict[str, float]:
    """Means over prompts of what there is; a prompt without a value does not count."""
    found: dict[str, float] = {}
    rows = list(rows)
    for name in MEANS:
        values = [float(value) for row in rows if isinstance(value := row.get(name), float)]
        if values:
            found[name] = round(float(np.mean(values)), 4)
    return found
