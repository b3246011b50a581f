"""What is left to do: the same listing and the same commits always give the same plan.

Shards are cut from the sorted keys and take the lowest free numbers, so a run that was killed and
resumed makes exactly the shards of one that was not.
"""

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice

from stores.checksum import sha256_bytes, sha256_file
from stores.errors import StoreError
from stores.quarantine import shards_set_aside
from stores.records import Duplicate, Input, Reject, inputs_to_bytes
from stores.sources import Scan, SourceItem
from stores.store import Store


@dataclass(frozen=True, slots=True)
class ShardPlan:
    """The inputs of one shard that is to be made."""

    number: int
    """The number it will have."""
    items: tuple[SourceItem, ...]
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
    ledger = _compare(scan.items, store)
    rejects, duplicates, replaced = _settle_scan(scan, store, ledger)
    retries = _rejected(store) if retry_rejects else set()
    pending = [
        item
        for item, done in zip(scan.items, ledger.done, strict=True)
        if (not done and item.key not in replaced) or (done and item.key in retries)
    ]
    unlisted = {reject.key for reject in scan.rejects} | {dup.key for dup in scan.duplicates}
    return Plan(
        shards=list(_cut(pending, retries, store, shard_rows)),
        changed=sorted(ledger.changed | (ledger.absent & {r.key for r in scan.rejects})),
        vanished=sorted(ledger.absent - unlisted),
        rejects=rejects,
        duplicates=duplicates,
        num_accounted=len(scan.items) + len(unlisted) - len(pending),
    )


@dataclass(slots=True)
class _Ledger:
    """A listing against the inputs of the committed shards."""

    done: bytearray
    """1 for each listed item that a shard accounts for."""
    changed: set[str]
    """Keys whose size or time no record agrees with."""
    absent: set[str]
    """Keys of records that are not among the listed items."""


def _compare(items: Sequence[SourceItem], store: Store) -> _Ledger:
    keys = [item.key for item in items]
    identities = [Input(item.key, item.size_bytes, item.mtime_ns) for item in items]
    ledger = _Ledger(bytearray(len(items)), set(), set())
    unchanged: set[str] = set()
    for number, entry in store.manifest.shards.items():
        # An undisturbed shard covers one run of the sorted keys: its digest saves its list.
        first, last = bisect_left(keys, entry.first_key), bisect_right(keys, entry.last_key)
        same_length = last - first == entry.inputs
        if same_length and sha256_bytes(inputs_to_bytes(identities[first:last])) == (
            entry.listing_sha256 or entry.inputs_sha256
        ):
            ledger.done[first:last] = b"\1" * entry.inputs
            continue
        for record in store.read_inputs(number):
            place = bisect_left(keys, record.key)
            if place == len(keys) or keys[place] != record.key:
                ledger.absent.add(record.key)
                continue
            ledger.done[place] = 1
            same = _is_unchanged(items[place], record)
            (unchanged if same else ledger.changed).add(record.key)
    ledger.changed -= unchanged
    return ledger


def _is_unchanged(item: SourceItem, record: Input) -> bool:
    """Whether an input is the one on record: by size and time, else by the bytes themselves."""
    if not record.is_known or record[1:3] == (item.size_bytes, item.mtime_ns):
        return True
    if record.sha256 is None:
        return False
    try:
        return sha256_file(item.path) == record.sha256
    except OSError:
        return False  # the run that reads it says why


def _settle_scan(
    scan: Scan, store: Store, ledger: _Ledger
) -> tuple[list[Reject], list[Duplicate], set[str]]:
    """The record of rejects and duplicates, so that every input has exactly one outcome.

    A key that has a committed outcome keeps it, and what former listings recorded of keys that
    this one does not have stays.

    Returns:
        Rejects, duplicates, and the listed items that became duplicates.
    """
    duplicates, replaced = _settle_duplicates(scan, ledger)
    rejects = [reject for reject in scan.rejects if reject.key not in ledger.absent]
    listed = {item.key for item in scan.items} | {reject.key for reject in scan.rejects}
    listed.update(duplicate.key for duplicate in scan.duplicates)
    listed.update(scan.tars)  # one refused before and mended since is an input no more
    old_rejects, old_duplicates = store.scan_record()
    rejects += [reject for reject in old_rejects if reject.key not in listed]
    duplicates += [duplicate for duplicate in old_duplicates if duplicate.key not in listed]
    return sorted(rejects), sorted(duplicates), replaced


def _settle_duplicates(scan: Scan, ledger: _Ledger) -> tuple[list[Duplicate], set[str]]:
    """Duplicates to record, and items that became duplicates.

    A listing lets the smallest key stay. Where a copy with a larger key is committed already, as
    when a source grew, that one stays and the new file becomes the duplicate.
    """
    copies: defaultdict[str, list[str]] = defaultdict(list)
    for duplicate in scan.duplicates:
        copies[duplicate.of_key].append(duplicate.key)
    flagged = zip(scan.items, ledger.done, strict=True)
    done = {item.key for item, flag in flagged if flag and item.key in copies}
    duplicates: list[Duplicate] = []
    replaced: set[str] = set()
    for original, keys in copies.items():
        committed = [key for key in keys if key in ledger.absent]
        keeper = original if original in done or not committed else min(committed)
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
    pending: Sequence[SourceItem], retries: set[str], store: Store, shard_rows: int
) -> Iterator[ShardPlan]:
    """Shards in quarantine as they were cut before, the rest in the order of keys."""
    taken = set(store.manifest.shards)
    again = {n: keys for n, keys in shards_set_aside(store.layout).items() if n not in taken}
    wanted = {key for keys in again.values() for key in keys}
    left = {item.key: item for item in pending if item.key in wanted}
    for number, keys in again.items():
        items = tuple(left.pop(key) for key in keys if key in left)
        if items:
            taken.add(number)
            yield ShardPlan(number, items, sum(item.key in retries for item in items))
    rest = [item for item in pending if item.key not in wanted] if wanted else pending
    numbers = (number for number in count() if number not in taken)
    for start, number in zip(range(0, len(rest), shard_rows), numbers, strict=False):
        items = tuple(islice(rest, start, start + shard_rows))
        yield ShardPlan(number, items, sum(item.key in retries for item in items))
