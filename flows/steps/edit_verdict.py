"""Where one way to edit is ahead of another, where behind, and what the measures say of the cause.

Both are measured on the same rows where they keep equally much; see `flows.steps.edit_comparison`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

EVEN = {"success": 0.1, "clip_score": 0.01}
"""Differences of a prompt up to these are even: with 48 rows, a standard error is up to 0.1."""
LESS_FAR = 0.8
"""A change shorter than this share of the other one's is called shorter."""
LESS_ALONG = 0.03
"""A directional similarity that is smaller by this is called smaller."""
COSTS_MORE = 0.03
"""A preservation that is smaller by this is called smaller."""


def verdict(own: Mapping[str, Any], peer: Mapping[str, Any], gained: str) -> dict[str, Any]:
    """Compare two methods over all prompts and prompt by prompt.

    Args:
        own: a row of `Comparison.methods`: name, means, and rows by prompt.
        peer: another one, of the same prompts.
        gained: the measure that decides, success or clip_score.

    Returns:
        ``method`` (the peer's name), ``difference`` of the means (own minus peer), ``ahead``,
        ``even`` and ``behind`` (numbers of prompts), ``text``, and ``lost``: a row for each prompt
        where the run is behind, the worst first, with what the measures say of the cause.
    """
    pairs = [
        (mine, other)
        for mine, other in zip(own["prompts"], peer["prompts"], strict=True)
        if gained in mine and gained in other
    ]
    margin = EVEN[gained]
    ahead = sum(mine[gained] - other[gained] > margin for mine, other in pairs)
    lost = [
        _lost(mine, other, gained) for mine, other in pairs if other[gained] - mine[gained] > margin
    ]
    lost.sort(key=lambda row: row[gained] - row[f"other {gained}"])
    counts = {"ahead": ahead, "even": len(pairs) - ahead - len(lost), "behind": len(lost)}
    difference = round(own[gained] - peer[gained], 4)
    return {
        "method": peer["method"],
        "difference": difference,
        **counts,
        "text": _text(own, peer, gained, difference, counts),
        "lost": lost,
    }


def _text(
    own: Mapping[str, Any],
    peer: Mapping[str, Any],
    gained: str,
    difference: float,
    counts: Mapping[str, int],
) -> str:
    name, values = gained.replace("_", " "), (own[gained], peer[gained])
    shown = [f"{v:.1%}" if gained == "success" else f"{v:.3f}" for v in values]
    order = "ahead of" if difference > 0 else "behind" if difference < 0 else "level with"
    return (
        f"Over all prompts {own['method']} ({name} {shown[0]}) is {order} {peer['method']} "
        f"({shown[1]}). By prompt it is ahead on {counts['ahead']}, even on {counts['even']} and "
        f"behind on {counts['behind']} (differences up to {EVEN[gained]:g} are even)."
    )


def _lost(mine: Mapping[str, Any], other: Mapping[str, Any], gained: str) -> dict[str, Any]:
    measures = (gained, *(m for m in ("preservation", "directional", "distance") if m in mine))
    figures = {
        name: value
        for measure in measures
        for name, value in ((measure, mine[measure]), (f"other {measure}", other[measure]))
    }
    return {"prompt": mine["prompt"], **figures, "cause": "; ".join(_causes(mine, other))}


def _causes(mine: Mapping[str, Any], other: Mapping[str, Any]) -> Sequence[str]:
    """What tells the two apart besides the outcome."""
    found = []
    if mine["distance"] < LESS_FAR * other["distance"]:
        found.append("its change is shorter")
    if mine["directional"] < other["directional"] - LESS_ALONG:
        found.append("its change follows the text less")
    if other.get("preservation", 1.0) < mine.get("preservation", 1.0) - COSTS_MORE:
        found.append("the other one keeps less here")
    return found or ["neither length, direction nor what is kept tells them apart"]
