"""What a page says about a store: data set card, rejects, throughput, and what is in it to see."""

import logging
from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np

from flows.steps.graph import NEIGHBOURS
from flows.steps.looking import StorePictures
from flows.steps.origin import CONFIG_BLOB, stored_config
from flows.steps.page import ReportPicture, ReportTable, Section
from flows.steps.pairs import draw_pairs
from flows.steps.progress import limiting_stage
from flows.steps.sheets import pair_sheet, store_sheet
from flows.steps.watch import read_status
from pipeline.errors import PipelineError
from pipeline.evaluation import arrange
from pipeline.images import encode_png, to_square
from pipeline.pairs import PairConfig
from pipeline.pairs.config import Policy
from pipeline.pictures import mosaic
from stores.blobs import list_blobs
from stores.errors import StoreError
from stores.places import StorePath
from stores.reader import StoreReader
from stores.store import Store

log = logging.getLogger("deltaedit")

NUM_MAPPED = 400
"""Rows on the embedding map."""
MAP_TILE = 44
NUM_PAIRS = 8
NUM_SHOWN_REJECTS = 12


def store_sections(store: StorePath) -> list[Section]:
    """Everything that a store has to show; pictures that cannot be made are left out, with why."""
    drawn = (_pictures_section, _map_section, _pairs_section)
    pictures = [section for draw in drawn for section in _if_possible(draw, store)]
    return [store_section(store), *_rejects_section(store), *_speed_section(store), *pictures]


def store_section(store: StorePath) -> Section:
    """The data set card: counts that add up, sources, columns and what made them."""
    reader = StoreReader(store)
    counts, shards = reader.manifest.counts, reader.manifest.shards
    size_bytes = sum(shard.size_bytes for shard in shards.values())
    facts: dict[str, object] = {
        "shards": f"{len(shards)} of {reader.manifest.header.shard_format}, "
        f"{size_bytes / 1e6:,.1f} MB",
        "held out": f"{reader.num_eval_rows:,} rows "
        f"(--split-eval {reader.manifest.header.eval_fraction})",
    }
    blobs = list_blobs(Store.open(store))
    if CONFIG_BLOB in blobs:
        config = stored_config(store)
        models = config.get("models") or {}
        facts["sources"] = ", ".join(config.get("sources", ()))
        facts["models"] = {
            name: value for name, value in models.items() if value and name != "columns"
        }
    facts["also kept"] = {name: f"{blob.size_bytes / 1e6:.1f} MB" for name, blob in blobs.items()}
    columns = [
        [c.name, " x ".join(map(str, c.shape)), c.dtype, reader.fingerprints.get(c.name, "")]
        for c in reader.schema.columns
    ]
    return Section(
        title="The store",
        text=f"{counts.inputs:,} inputs = {counts.rows:,} rows + {counts.rejects:,} rejects + "
        f"{counts.duplicates:,} duplicates.",
        figures={
            "rows": f"{counts.rows:,}",
            "rejects": f"{counts.rejects:,}",
            "duplicates": f"{counts.duplicates:,}",
            "held out": f"{reader.num_eval_rows:,}",
        },
        table=facts,
        tables=[
            ReportTable(
                heads=["column", "shape", "stored as", "made by"],
                lines=columns,
                caption="Columns, one row an image.",
            )
        ],
    )


def _rejects_section(store: StorePath) -> list[Section]:
    rejects = list(StoreReader(store).rejects())
    if not rejects:
        return []
    reasons = Counter(reject.reason for reject in rejects)
    # One of each reason comes before a second one of any.
    rank = Counter[str]()
    ranked = []
    for reject in rejects:
        rank[reject.reason] += 1
        ranked.append((rank[reject.reason], reject))
    ranked.sort(key=lambda item: item[0])
    examples = [
        [reject.key, reject.reason, reject.detail] for _, reject in ranked[:NUM_SHOWN_REJECTS]
    ]
    return [
        Section(
            title="Left out",
            text=f"{len(rejects):,} inputs gave no row.",
            figures={reason: f"{count:,}" for reason, count in reasons.most_common()},
            tables=[ReportTable(heads=["input", "reason", "what was found"], lines=examples)],
        )
    ]


def _speed_section(store: StorePath) -> list[Section]:
    run = read_status(store)["run"]
    if run is None or not run["inputs"]["done"]:
        return []
    seconds = run.get("stage_seconds", {})
    limit = limiting_stage(seconds)
    return [
        Section(
            title="Throughput",
            text=f"The last run that encoded into this store: {run['state']}, started "
            f"{run['started']} on {run['host']}."
            + (f" It was held up by: {limit}." if limit else ""),
            figures={
                "images per second": f"{run['images_per_s']:,.1f}",
                "images": f"{run['inputs']['done']:,}",
                "seconds": f"{run['seconds']:,.0f}",
                "workers": str(run["workers"]),
            },
            table={f"seconds: {stage}": spent for stage, spent in seconds.items()},
        )
    ]


def _if_possible(draw: Callable[[StorePath], Section], store: StorePath) -> Iterator[Section]:
    """A section of pictures; a store without images, codes or models still gets its page."""
    try:
        yield draw(store)
    except (StoreError, PipelineError) as error:
        log.warning("left out of the page: %s", error)


def _pictures_section(store: StorePath) -> Section:
    sheet = ReportPicture(encode_png(store_sheet(store)), "Images, and what their codes give back.")
    return Section(title="Images", pictures=[sheet])


def _map_section(store: StorePath) -> Section:
    """Rows spread over the store, like beside like."""
    pictures = StorePictures(store)
    reader = pictures.reader
    if "clip" not in reader.schema.names:
        raise StoreError(f"{store} has no clip column to map")
    rows = np.unique(np.linspace(0, len(reader) - 1, min(NUM_MAPPED, len(reader))).astype(int))
    clip = reader.rows(rows, ["clip"])["clip"]
    cells = arrange(clip / np.linalg.norm(clip, axis=1, keepdims=True))
    tiles = [to_square(p, MAP_TILE) for p in pictures.of_keys([reader.keys[row] for row in rows])]
    caption = (
        f"{len(rows)} rows of {len(reader):,}, arranged so that neighbours in CLIP space are "
        "neighbours here (t-SNE, moved onto a grid)."
    )
    picture = ReportPicture(encode_png(mosaic(tiles, cells)), caption)
    return Section(title="Embedding map", pictures=[picture])


def _pairs_section(store: StorePath) -> Section:
    has_graph = NEIGHBOURS in list_blobs(Store.open(store))
    policies: tuple[Policy, ...] = ("random", "nearest") if has_graph else ("random",)
    sheets = []
    for policy in policies:
        pairs = draw_pairs(store, PairConfig(policy=policy), NUM_PAIRS)
        caption = f"Policy {policy}: source, target, and the cosine of their embeddings."
        sheets.append(ReportPicture(encode_png(pair_sheet(store, pairs)), caption))
    return Section(
        title="Pairs",
        text="What training draws from: random pairs are the paper's; nearest ones differ in few "
        "things.",
        pictures=sheets,
    )
