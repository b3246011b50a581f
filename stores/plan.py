"""What is left to do: the same listing and the same commits always give the same plan.

Shards are cut from the sorted keys and take the lowest free numbers, so a run that was killed and
resumed makes exactly the shards of one that was not.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np

from stores.checksum import sha256_bytes, sha256_part
from stores.errors import StoreError
from stores.listing import Listing, SourceItem
from stores.quarantine import shards_set_aside
from stores.records import Duplicate, Input, Reject, inputs_to_bytes
from stores.sources import Scan
from stores.store import Store


@dataclass(frozen=True, slots=True)
class ShardPlan:
    """The inputs of one shard that is to be made."""

    number: int
    """The number it will have."""
    items: Sequence[SourceItem]
    """Its inputs, sorted by key."""
    num_retries: int = 0
    """How many of them are rejects of an earlier shard, tried again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What a run has to do, and what its listing says about what was done before."""

    shards: list[ShardPlan]
    """What is to be made."""
    changed: list[str]
    """Keys with a committed outcome whose file has another size or modification time now."""
    vanished: list[str]
    """Keys with a committed outcome that the listing no longer has; their rows stay."""
    rejects: list[Reject]
    """What to put on record as refused while listing."""
    duplicates: list[Duplicate]
    """What to put on record as duplicates."""
    num_accounted: int
    """Listed inputs with an outcome already: in a shard, or among the rejects and duplicates."""

    @property
    def num_pending(self) -> int:
        """Inputs that the planned shards will account for."""
        return sum(len(shard.items) for shard in self.shards)

    @property
    def num_retries(self) -> int:
        """How many of them are rejects of earlier shards."""
        return sum(shard.num_retries for shard in self.shards)


def plan_shards(scan: Scan, store: Store, shard_rows: int, *, retry_rejects: bool = False) -> Plan:
    """Compare a listing with what a store has.

    Args:
        scan: The listing.
        store: The store; `consolidate` or `refresh` it first if others wrote to it.
        shard_rows: Inputs of a full shard.
        retry_rejects: Plan the rejects of earlier shards again.

    Raises:
        StoreError: `shard_rows` is not positive.
        ManifestError: A list of inputs or rejects that is needed cannot be read.
    """
    if shard_rows < 1:
        raise StoreError(f"shard_rows must be at least 1, got {shard_rows}")
    items = scan.items if isinstance(scan.items, Listing) else Listing.of(scan.items)
    ledger = _compare(items, store)
    rejects, duplicates, replaced = _settle_scan(scan, items, store, ledger)
    is_pending = ~ledger.done
    is_pending[_found(items, replaced)] = False
    is_retry = np.zeros(len(items), dtype=bool)
    if retry_rejects:
        is_retry[_found(items, _rejected(store))] = True
        is_retry &= ledger.done
    is_pending |= is_retry
    unlisted = {reject.key for reject in scan.rejects} | {dup.key for dup in scan.duplicates}
    return Plan(
        shards=list(_cut(items, is_pending, is_retry, store, shard_rows)),
        changed=sorted(ledger.changed | (ledger.absent & {r.key for r in scan.rejects})),
        vanished=sorted(ledger.absent - unlisted),
        rejects=rejects,
        duplicates=duplicates,
        num_accounted=len(items) + len(unlisted) - int(is_pending.sum()),
    )


@dataclass(slots=True)
class _Ledger:
    """A listing against the inputs of the committed shards."""

    done: np.ndarray
    """[N] bool: whether a shard accounts for each listed item."""
    changed: set[str]
    """Keys whose size or time no record agrees with."""
    absent: set[str]
    """Keys of records that are not among the listed items."""


def _found(items: Listing, keys: Collection[str]) -> np.ndarray:
    """Places of those keys that are listed."""
    places = items.places(list(keys))
    return places[places >= 0]


def _compare(items: Listing, store: Store) -> _Ledger:
    ledger = _Ledger(np.zeros(len(items), dtype=bool), set(), set())
    unchanged: set[str] = set()
    for number, entry in store.manifest.shards.items():
        # An undisturbed shard covers one run of the sorted keys: its digest saves its list.
        first, last = items.bisect(entry.first_key), items.bisect(entry.last_key, right=True)
        is_run = last - first == entry.inputs and not entry.retries
        if is_run and _listing_digest(items[first:last]) == entry.listing_digest:
            ledger.done[first:last] = True
            continue
        records = store.read_inputs(number)
        places = items.places([record.key for record in records])
        ledger.done[places[places >= 0]] = True
        for record, place in zip(records, places.tolist(), strict=True):
            if place < 0:
                ledger.absent.add(record.key)
            elif not _is_unchanged(items[place], record):
                ledger.changed.add(record.key)
            elif entry.retries:
                unchanged.add(record.key)
    ledger.changed -= unchanged
    return ledger


def _listing_digest(items: Listing) -> str:
    return sha256_bytes(inputs_to_bytes(Input(i.key, i.size_bytes, i.mtime_ns) for i in items))


def _is_unchanged(item: SourceItem, record: Input) -> bool:
    """Whether an input is the one on record: by size and time, else by the bytes themselves."""
    if not record.is_known or record[1:3] == (item.size_bytes, item.mtime_ns):
        return True
    if record.sha256 is None:
        return False
    try:
        return sha256_part(item.path, item.offset_bytes, item.size_bytes) == record.sha256
    except OSError:
        return False  # the run that reads it says why


def _settle_scan(
    scan: Scan, items: Listing, store: Store, ledger: _Ledger
) -> tuple[list[Reject], list[Duplicate], set[str]]:
    """The record of rejects and duplicates, so that every input has exactly one outcome.

    A key that has a committed outcome keeps it, and what former listings recorded of keys that
    this one does not have stays.

    Returns:
        Rejects, duplicates, and the listed items that became duplicates.
    """
    duplicates, replaced = _settle_duplicates(scan, items, ledger)
    rejects = [reject for reject in scan.rejects if reject.key not in ledger.absent]
    old_rejects, old_duplicates = store.scan_record()
    old_keys = [line.key for line in (*old_rejects, *old_duplicates)]
    is_listed = items.places(old_keys) >= 0
    listed = {key for key, flag in zip(old_keys, is_listed.tolist(), strict=True) if flag}
    listed.update(reject.key for reject in scan.rejects)
    listed.update(duplicate.key for duplicate in scan.duplicates)
    listed.update(scan.tars)  # one refused before and mended since is an input no more
    rejects += [reject for reject in old_rejects if reject.key not in listed]
    duplicates += [duplicate for duplicate in old_duplicates if duplicate.key not in listed]
    return sorted(rejects), sorted(duplicates), replaced


def _settle_duplicates(
    scan: Scan, items: Listing, ledger: _Ledger
) -> tuple[list[Duplicate], set[str]]:
    """Duplicates to record, and items that became duplicates.

    A listing lets the smallest key stay. Where a copy with a larger key is committed already, as
    when a source grew, that one stays and the new file becomes the duplicate.
    """
    copies: defaultdict[str, list[str]] = defaultdict(list)
    for duplicate in scan.duplicates:
        copies[duplicate.of_key].append(duplicate.key)
    places = items.places(list(copies)).tolist()
    duplicates: list[Duplicate] = []
    replaced: set[str] = set()
    for (original, keys), place in zip(copies.items(), places, strict=True):
        committed = [key for key in keys if key in ledger.absent]
        is_done = place >= 0 and ledger.done[place]
        keeper = original if is_done or not committed else min(committed)
        if keeper != original:
            replaced.add(original)
            duplicates.append(Duplicate(original, keeper))
        duplicates += [Duplicate(key, keeper) for key in keys if key not in ledger.absent]
    return duplicates, replaced


def _rejected(store: Store) -> set[str]:
    """Keys that some shard rejected and no shard made a row of."""
    rejected: set[str] = set()
    made: set[str] = set()
    for number, entry in store.manifest.shards.items():
        refused = {reject.key for reject in store.read_rejects(number)} if entry.rejects else set()
        rejected |= refused
        if entry.retries:
            made.update(
                record.key for record in store.read_inputs(number) if record.key not in refused
            )
    return rejected - made


def _cut(
    items: Listing, is_pending: np.ndarray, is_retry: np.ndarray, store: Store, shard_rows: int
) -> Iterator[ShardPlan]:
    """Shards in quarantine as they were cut before, the rest in the order of keys."""
    taken = set(store.manifest.shards)
    left = is_pending.copy()

    def shard(number: int, places: np.ndarray) -> ShardPlan:
        return ShardPlan(number, items[places], int(is_retry[places].sum()))

    for number, keys in shards_set_aside(store.layout).items():
        places = np.sort(_found(items, keys))
        places = places[left[places]]
        if len(places) and number not in taken:
            taken.add(number)
            left[places] = False
            yield shard(number, places)
    rest = np.flatnonzero(left)
    numbers = (number for number in count() if number not in taken)
    for start, number in zip(range(0, len(rest), shard_rows), numbers, strict=False):
        yield shard(number, rest[start : start + shard_rows])
