"""Nearest neighbours of CLIP embeddings by cosine similarity: FAISS indexes by inner product.

Kinds: `flat` compares a query with every row; `ivf` with the rows of the cells nearest to it,
kept as float16 or, where memory is short, 8 bits a number; `hnsw` walks a graph of links.
"""

import ctypes
import mmap
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import numpy as np

from pipeline.errors import PairError
from pipeline.pairs.rows import unit_rows
from pipeline.shapes import Floats, Ints, assert_shape

if TYPE_CHECKING:
    from pathlib import Path

    import faiss

IndexKind = Literal["flat", "ivf", "ivf8", "hnsw"]
KINDS: tuple[IndexKind, ...] = get_args(IndexKind)

FLAT_ROWS = 100_000
"""Up to this many rows `flat` is chosen: 10 ms a query on one core at C 512."""
CELLS_PER_ROOT = 2
"""An IVF index has this many cells for each square root of a row."""
TRAINING_ROWS_PER_CELL = 40
TRAINING_ROUNDS = 10
"""Of k-means; FAISS takes 25 by default, for cells that are hardly better."""
HNSW_LINKS = 32
_ID_BYTES = 8
HNSW_BYTES = 8 * HNSW_LINKS + 16
"""Per row, besides the row: two links of 4 bytes for each of `HNSW_LINKS`, and the level."""


class Recall(NamedTuple):
    """How much of the exact answer an index finds."""

    recall: float
    """Mean share of the exact `k` nearest that are among the `k` found, 0..1."""
    k: int
    """Neighbours compared."""
    num_queries: int
    """Rows asked for."""
    effort: int
    """`nprobe` (cells looked into) or `efSearch` (rows kept while walking); 0 for exact search."""


def bytes_per_row(kind: IndexKind, width: int) -> int:
    """Memory of one indexed row of `width` numbers."""
    sizes = {"flat": 4 * width, "ivf": 2 * width + 8, "ivf8": width + 8}
    return sizes.get(kind, 4 * width + HNSW_BYTES)


def choose_kind(num_rows: int, width: int, budget_bytes: int | None = None) -> IndexKind:
    """The most exact kind that suits the number of rows and fits into the memory.

    Args:
        num_rows: N.
        width: C.
        budget_bytes: memory that the index may take; None for as much as it likes.

    Raises:
        PairError: not even 8 bits a number fit.
    """
    suitable = KINDS[:3] if num_rows <= FLAT_ROWS else KINDS[1:3]
    for kind in suitable:
        if budget_bytes is None or num_rows * bytes_per_row(kind, width) <= budget_bytes:
            return kind
    least = num_rows * bytes_per_row("ivf8", width)
    raise PairError(
        f"{num_rows} rows of {width} take {least:,} bytes at 8 bits a number, the memory budget is "
        f"{budget_bytes:,}: raise it, or index a part of the rows"
    )


def build_index(clip: Floats, kind: IndexKind = "flat") -> "faiss.Index":
    """Index the rows of `clip` [N, C] float32 (normalised here)."""
    index = empty_index(kind, clip)
    add_rows(index, clip)
    return index


def empty_index(kind: IndexKind, clip: Floats) -> "faiss.Index":
    """An index of `kind` without rows, fit for rows such as `clip` [N, C] float32."""
    import faiss

    width = clip.shape[1]
    if kind == "flat":
        return faiss.IndexFlatIP(width)
    if kind == "hnsw":
        return faiss.IndexHNSWFlat(width, HNSW_LINKS, faiss.METRIC_INNER_PRODUCT)
    num_cells = max(
        1, min(int(CELLS_PER_ROOT * len(clip) ** 0.5), len(clip) // TRAINING_ROWS_PER_CELL)
    )
    numbers = "SQfp16" if kind == "ivf" else "SQ8"
    index = faiss.index_factory(width, f"IVF{num_cells},{numbers}", faiss.METRIC_INNER_PRODUCT)
    faiss.extract_index_ivf(index).cp.niter = TRAINING_ROUNDS
    step = max(1, len(clip) // (TRAINING_ROWS_PER_CELL * num_cells))
    index.train(unit_rows(clip[::step]))
    return index


def add_rows(index: "faiss.Index", clip: Floats) -> None:
    """Index more rows [M, C] float32; they are numbered after those there are."""
    index.add(unit_rows(clip))  # pyright: ignore[reportCallIssue] - faiss patches add at import


def tune(
    index: "faiss.Index", clip: Floats, *, target: float, k: int = 10, num_queries: int = 256
) -> Recall:
    """Set the least effort at which an index finds enough of the exact answer.

    Args:
        index: of all rows of `clip`.
        clip: [N, C] float32. Rows spread over it are asked for their `k` nearest others.
        target: recall to reach, 0..1.
        k: neighbours compared.
        num_queries: rows asked for.

    Returns:
        What is reached: less than `target` where even the greatest effort is not enough, as may be
        with 8 bits a number.
    """
    import faiss

    k, num_queries = min(k, len(clip) - 1), min(num_queries, len(clip))
    rows = np.linspace(0, len(clip) - 1, num_queries).astype(np.int64)
    exact = faiss.knn(
        unit_rows(clip[rows]), unit_rows(clip), k + 1, metric=faiss.METRIC_INNER_PRODUCT
    )[1]
    others = exact != rows[:, None]
    others[others.all(axis=1), -1] = False  # among more than k equal rows itself may be missing
    exact = exact[others].reshape(num_queries, k)
    reached = Recall(0.0, k, num_queries, 0)
    for effort in _efforts(index):
        _set_effort(index, effort)
        found = search(index, clip[rows], k + 1)[1]
        shares = [np.isin(ids, ours).mean() for ids, ours in zip(exact, found, strict=True)]
        reached = Recall(float(np.mean(shares)), k, num_queries, effort)
        if reached.recall >= target:
            break
    return reached


def _efforts(index: "faiss.Index") -> list[int]:
    """Settings to try, each twice the one before; 0 alone for exact search."""
    import faiss

    if isinstance(index, faiss.IndexIVF):
        largest, first = index.nlist, 1
    elif isinstance(index, faiss.IndexHNSW):
        largest, first = index.ntotal, 16
    else:
        return [0]
    return [first << power for power in range(32) if first << power < largest] + [largest]


def _set_effort(index: "faiss.Index", effort: int) -> None:
    import faiss

    if isinstance(index, faiss.IndexIVF):
        index.nprobe = effort
    elif isinstance(index, faiss.IndexHNSW):
        index.hnsw.efSearch = effort


def search(index: "faiss.Index", queries: Floats, k: int) -> tuple[Floats, Ints]:
    """Find the `k` indexed rows most similar to each query.

    Args:
        index: made by `build_index`.
        queries: [M, C] float32, of any length.
        k: results per query, at most the number of indexed rows.

    Returns:
        Cosines [M, k] float32 in -1..1, falling, and row numbers [M, k] int64; -1 where an index
        that is not exact found fewer than `k`.

    Raises:
        PairError: `k` is outside 1..rows.
        ShapeError: the queries have another width than the index.
    """
    assert_shape(queries, (None, index.d), "queries")
    if not 1 <= k <= index.ntotal:
        raise PairError(f"k is {k}, but the index holds {index.ntotal} rows: ask for 1 to that")
    similarities, rows = index.search(  # pyright: ignore[reportCallIssue] - patched like `add`
        np.ascontiguousarray(unit_rows(queries)), k
    )
    return np.clip(similarities, -1.0, 1.0), rows


def on_gpus(index: "faiss.Index") -> "faiss.Index":
    """The index on all GPUs where faiss-gpu is installed and finds some, else the index itself."""
    import faiss

    if not has_gpus():
        return index
    return faiss.index_cpu_to_all_gpus(index)


def has_gpus() -> bool:
    """Whether faiss-gpu is installed and finds a GPU."""
    import faiss

    return hasattr(faiss, "index_cpu_to_all_gpus") and faiss.get_num_gpus() > 0


def index_to_bytes(index: "faiss.Index") -> bytes:
    """The index in FAISS's own file format."""
    import faiss

    return faiss.serialize_index(index).tobytes()


def index_from_bytes(data: bytes) -> "faiss.Index":
    """The inverse of `index_to_bytes`; rows can be added.

    Raises:
        PairError: the bytes are not a whole FAISS index.
    """
    import faiss

    try:
        return faiss.deserialize_index(np.frombuffer(data, dtype=np.uint8))
    except RuntimeError as error:
        raise PairError(
            f"{len(data)} bytes are not a whole FAISS index: rebuild it ({error})"
        ) from error


def map_index(path: "Path") -> "faiss.Index":
    """An index file mapped into memory, to be searched: nothing is read before it is compared.

    FAISS maps for random access, page by page; `read_ahead` before a search is much faster.

    Raises:
        PairError: the file is not a whole FAISS index.
    """
    import faiss

    try:
        return faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    except RuntimeError as error:
        raise PairError(f"{path} is not a whole FAISS index: rebuild it ({error})") from error


def read_ahead(index: "faiss.Index", query: Floats) -> None:
    """Begin to read what a search of a mapped index will compare, in large pieces side by side.

    Args:
        index: made by `map_index`; of a kind that is not compared in whole lists, nothing is read.
        query: [C] float32, of any length.
    """
    import faiss

    if isinstance(index, faiss.IndexFlat):
        _begin_reading(int(index.get_xb()), 4 * index.d * index.ntotal)
    elif isinstance(index, faiss.IndexIVF):
        cells = search(index.quantizer, query[None], index.nprobe)[1][0]
        lists: Any = index.invlists
        for cell in cells[cells >= 0].tolist():
            size = lists.list_size(cell)
            _begin_reading(int(lists.get_codes(cell)), size * lists.code_size)
            _begin_reading(int(lists.get_ids(cell)), size * _ID_BYTES)


def _begin_reading(address: int, size_bytes: int) -> None:
    """Ask the system to read mapped pages soon; where it cannot be asked, they are read later."""
    madvise = getattr(_libc(), "madvise", None)
    if madvise is None or not size_bytes:
        return
    begin = address - address % mmap.PAGESIZE
    length = address + size_bytes - begin
    madvise(ctypes.c_void_p(begin), ctypes.c_size_t(length), mmap.MADV_WILLNEED)


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)
