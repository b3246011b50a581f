"""Other ways to edit, each measured on the same rows where it keeps as much as the run does."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from flows.steps.edit_files import AXES
from flows.steps.edit_methods import GLOBAL, DeltaEdit, EditMethod, choose_method
from flows.steps.edit_pool import EditPool, Setting
from flows.steps.edit_scores import (
    STRENGTHS,
    THRESHOLDS,
    EditScores,
    OnPrompt,
    score_grid,
    score_prompts,
)
from flows.steps.edit_verdict import verdict
from flows.steps.train import run_store
from pipeline.errors import CheckpointError
from pipeline.plots import tradeoff
from pipeline.training import MAPPER_NAME, load_trained

COMPARISON_NAME = "comparison.png"
GLOBAL_STRENGTHS = (1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 10.0)
GLOBAL_THRESHOLDS = (0.0, 0.05, 0.1, 0.15, 0.2)
"""Alpha and beta of global directions: a unit direction has larger relevances than a raw one."""
TOLERANCE = 0.005
"""Of preservation, within which two methods keep equally much."""
MAX_TRIES = 4
"""Strengths measured until a method is within the tolerance."""
UNCHANGED = {"preservation": 1.0, "success": 0.0, "distance": 0.0}
"""What an edit of strength 0 has."""


class Measures(NamedTuple):
    """What a comparison holds equal, and what it then looks at."""

    kept: str
    """The measure that is held equal."""
    gained: str
    """The measure that is compared."""
    sign: int
    """1 where more of `kept` is better, -1 where less is."""

    def keeps(self, row: Mapping[str, float]) -> float:
        """How much a setting keeps; more is better."""
        return self.sign * row[self.kept]


BY_TRUTH = Measures("preservation", "success", 1)
BY_CLIP = Measures("distance", "clip_score", -1)
"""Where no reader tells success: moved as far in S."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Another way to edit the rows of a run's store."""

    name: str
    """What tables call it."""
    method: EditMethod
    """How it edits."""
    settings: list[Setting]
    """Of its curves."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """The run and its peers, each at one setting, and their curves."""

    by: Measures
    """What is held equal and what is compared."""
    methods: list[dict[str, Any]]
    """One row a method, the run's own first: name, setting, means, and rows by prompt."""
    curves: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    """Every setting that was measured, by method."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON and for reports."""
        name, kept = self.methods[0]["method"], self.methods[0][self.by.kept]
        text = (
            f"Each method with one strength and one threshold for all prompts, at the strength "
            f"where its {self.by.kept} equals that of {name} ({kept:.3f}, to {TOLERANCE}) and at "
            f"the threshold of its grid where its {self.by.gained} is then largest."
        )
        verdicts = [verdict(self.methods[0], peer, self.by.gained) for peer in self.methods[1:]]
        return {
            "text": text,
            "verdicts": verdicts,
            "methods": self.methods,
            "curves": self.curves,
        }

    def picture(self) -> bytes:
        """PNG: the settings of each method that no other setting of it beats in both measures."""
        series = {
            name: [(row[self.by.kept], row[self.by.gained], "") for row in _front(curve, self.by)]
            for name, curve in self.curves.items()
        }
        known = self.by == BY_TRUTH
        axes = AXES if known else {"x_label": "distance moved in S", "y_label": "CLIP score"}
        return tradeoff(series, title="Best settings of each method, over all prompts", **axes)


def find_peers(pool: EditPool, run: Path, names: Sequence[str]) -> list[Peer]:
    """The peers of a run.

    Raises:
        CheckpointError: a name is no finished run, or a run of another store.
        PipelineError: global directions are asked for and there is no relevance matrix.
    """
    store = run_store(run)
    peers = []
    for name in names:
        if name == GLOBAL:
            grid = product(GLOBAL_STRENGTHS, GLOBAL_THRESHOLDS)
            method: EditMethod = choose_method(GLOBAL, pool.editor, pool.std)
        else:
            other = run_store(Path(name))
            if other != store:
                raise CheckpointError(
                    f"{name} was trained on {other}, {run} on {store}; compare runs of one store"
                )
            grid = product(STRENGTHS, THRESHOLDS)
            method = DeltaEdit(pool.editor, load_trained(Path(name) / MAPPER_NAME))
        peers.append(Peer(Path(name).name, method, [Setting(*each) for each in grid]))
    return peers


def compare(
    pool: EditPool,
    own: tuple[str, EditScores, Setting, list[dict[str, float]]],
    peers: Sequence[Peer],
    on_prompt: OnPrompt,
) -> Comparison:
    """Measure every peer at the setting where it keeps as much as the run.

    Args:
        pool: rows and models.
        own: the run's name, its scores, the setting they are at, and its curve.
        peers: what it is compared with.
        on_prompt: called twice for every prompt and peer.
    """
    name, scores, setting, curve = own
    by = BY_TRUTH if {BY_TRUTH.kept, BY_TRUTH.gained} <= scores.mean.keys() else BY_CLIP
    found = Comparison(by, [_row(name, setting, scores)], {name: curve})
    prompts = [str(row["prompt"]) for row in scores.prompts]
    for peer in peers:
        found.curves[peer.name] = score_grid(pool, peer.method, prompts, peer.settings, on_prompt)
        start = keep_as_much(found.curves[peer.name], by.keeps(scores.mean), by)
        tried: list[tuple[Setting, EditScores]] = []
        while len(tried) < MAX_TRIES:
            told = on_prompt if not tried else lambda: None
            tried.append(
                (start.setting, score_prompts(pool, peer.method, prompts, start.setting, told))
            )
            start = start.narrowed(by.keeps(tried[-1][1].mean))
            if start.is_met:
                break
        wanted = by.keeps(scores.mean)
        best = min(tried, key=lambda each: abs(by.keeps(each[1].mean) - wanted))
        found.methods.append(_row(peer.name, *best))
    return found


@dataclass(frozen=True, kw_only=True, slots=True)
class Bracket:
    """Two strengths at one threshold, between which a method keeps what is wanted."""

    threshold: float
    """Of both."""
    wanted: float
    """What is to be kept."""
    low: tuple[float, float]
    """Strength and what is kept: enough."""
    high: tuple[float, float]
    """Strength and what is kept: too little, unless both are the same."""
    is_met: bool = False
    """Whether a strength has been measured that keeps what is wanted, or none can be found."""

    @property
    def share(self) -> float:
        """Where between the two the wanted value is, 0 to 1, on a straight line."""
        drop = self.low[1] - self.high[1]
        return (self.low[1] - self.wanted) / drop if drop > 0 else 1.0

    @property
    def setting(self) -> Setting:
        """The setting to measure."""
        strength = self.low[0] + self.share * (self.high[0] - self.low[0])
        return Setting(round(strength, 4), self.threshold)

    def narrowed(self, kept: float) -> "Bracket":
        """After `setting` was measured and found to keep `kept`."""
        met = abs(kept - self.wanted) <= TOLERANCE or self.high[1] >= self.wanted
        at = (self.setting.strength, kept)
        ends = (
            {"low": at, "high": self.high} if kept >= self.wanted else {"low": self.low, "high": at}
        )
        return Bracket(threshold=self.threshold, wanted=self.wanted, is_met=met, **ends)


def keep_as_much(curve: Sequence[Mapping[str, float]], wanted: float, by: Measures) -> Bracket:
    """Where on its curve a method keeps what is wanted and gains most, by straight lines.

    Args:
        curve: rows with strength, threshold and the measures.
        wanted: what is to be kept, in terms of `Measures.keeps`.
        by: the measures.

    Returns:
        The bracket of the threshold that gains most. A threshold at which even the largest
        strength keeps more gives that strength.
    """
    candidates: list[tuple[float, Bracket]] = []
    for threshold in sorted({row["threshold"] for row in curve}):
        rows = sorted(
            (row for row in curve if row["threshold"] == threshold), key=lambda r: r["strength"]
        )
        start = {"strength": 0.0, by.gained: rows[0][by.gained], **UNCHANGED}
        points = [start, *rows]
        place = next((n for n, p in enumerate(points) if by.keeps(p) < wanted), len(points) - 1)
        before = points[max(place - 1, 0)] if by.keeps(points[place]) < wanted else points[place]
        bracket = Bracket(
            threshold=threshold,
            wanted=wanted,
            low=(before["strength"], by.keeps(before)),
            high=(points[place]["strength"], by.keeps(points[place])),
        )
        gain = before[by.gained] + bracket.share * (points[place][by.gained] - before[by.gained])
        candidates.append((gain, bracket))
    return max(candidates, key=lambda candidate: candidate[0])[1]


def _front(curve: Sequence[dict[str, float]], by: Measures) -> list[dict[str, float]]:
    """Rows that no other row beats in both measures, from what keeps most to what gains most."""
    front: list[dict[str, float]] = []
    for row in sorted(curve, key=lambda r: (-by.keeps(r), -r[by.gained])):
        if not front or row[by.gained] > front[-1][by.gained]:
            front.append(row)
    return front


def _row(name: str, setting: Setting, scores: EditScores) -> dict[str, Any]:
    limits = {"threshold": setting.threshold, "top_k": setting.top_k}
    chosen = {limit: value for limit, value in limits.items() if value is not None}
    return {
        "method": name,
        "strength": setting.strength,
        **chosen,
        **scores.mean,
        "prompts": scores.prompts,
    }
