"""Avatars as files: what `deltaedit avatars` writes."""

import json
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from pipeline.demo.avatars import draw_avatar
from pipeline.demo.captions import write_truthful_caption
from pipeline.errors import PipelineError
from pipeline.images import encode_png
from stores.atomic import make_folder, replacing

ATTRIBUTES = "attributes.jsonl"
CHUNK = 64


def write_avatars(
    out: Path,
    *,
    count: int,
    seed: int,
    num_workers: int,
    on_progress: Callable[[int], None] = lambda _count: None,
) -> Path:
    """Render `count` avatars into a folder.

    Each picture is ``avatar-<index>.png``; ``attributes.jsonl`` has one line a picture with key,
    attributes and caption, and is written last. Avatar i of a seed is the same whatever `count`.

    Returns:
        The path of ``attributes.jsonl``.

    Raises:
        PipelineError: the folder has pictures that do not belong to the series.
    """
    make_folder(out)
    _refuse_others(out, count)
    lines: list[str] = []
    render = partial(_render, out, seed)
    with ProcessPoolExecutor(num_workers) as pool:
        try:
            for line in pool.map(render, range(count), chunksize=CHUNK):
                lines.append(line)
                on_progress(1)
        except BaseException:
            # Without this an interrupt would first render all that is left.
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    target = out / ATTRIBUTES
    with replacing(target) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return target


def _refuse_others(out: Path, count: int) -> None:
    """A picture without a line in the listing would be encoded and could not be explained."""
    ours = {_key(index) for index in range(count)}
    others = sorted(path.name for path in out.glob("*.png") if path.name not in ours)
    if others:
        raise PipelineError(
            f"{out} has {len(others)} pictures that are none of the {count} avatars asked for, "
            f"such as {others[0]}; give a new folder"
        )


def _key(index: int) -> str:
    return f"avatar-{index:06d}.png"


def _render(out: Path, seed: int, index: int) -> str:
    avatar = draw_avatar(seed, index)
    key = _key(index)
    (out / key).write_bytes(encode_png(avatar.pixels()))
    record = {
        "key": key,
        "attributes": avatar.attributes.as_dict(),
        "caption": write_truthful_caption(avatar.attributes, seed, index),
    }
    return json.dumps(record)


def read_attributes(path: Path) -> dict[str, dict[str, str]]:
    """Key -> attributes, from an ``attributes.jsonl``."""
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {record["key"]: record["attributes"] for record in records}


def draw_pixels(seed: int, indices: range) -> np.ndarray:
    """The avatars `indices` of a series, [N, 64, 64, 3] uint8, without files."""
    return np.stack([draw_avatar(seed, index).pixels() for index in indices])
