"""What can be kept of one shard whose commit mark, lists or bytes may have suffered."""

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from stores.checks import check_shard, count_shard_rows, shard_keys
from stores.checksum import sha256_bytes, sha256_file
from stores.errors import ManifestError, ShardCorruptError
from stores.manifest import ShardEntry
from stores.records import Input, Reject, inputs_to_bytes, listing_to_bytes, rejects_to_bytes
from stores.repeats import KeyCensus
from stores.store import Store


@dataclass(frozen=True, kw_only=True, slots=True)
class Salvage:
    """One shard after examination."""

    number: int
    """Its number."""
    problems: list[str] = field(default_factory=list)
    """What is wrong with its file; a shard with a problem is damaged."""
    entry: ShardEntry | None = None
    """What its commit mark should say; None for a damaged shard."""
    is_proven: bool = False
    """Whether a commit mark, or the manifest, vouches for the bytes of the file."""
    lists: tuple[bytes, bytes] | None = None
    """Its inputs and rejects where those lists have to be written again; None where both stand."""
    keys: Sequence[str] = ()
    """Of a damaged shard: its inputs, as far as they are known."""
    num_dropped: int = 0
    """Inputs whose outcome is lost with a list: a next run gives them one."""

    def input_keys(self, store: Store) -> list[str]:
        """The keys of the inputs that the shard accounts for from now on.

        Raises:
            ManifestError: The list was taken away since it was examined.
        """
        if self.lists is None:
            return [record.key for record in store.read_inputs(self.number)]
        return [json.loads(line)["key"] for line in self.lists[0].splitlines()]


def examine(
    store: Store,
    number: int,
    candidates: Sequence[ShardEntry],
    *,
    directions: Collection[str] = (),
) -> Salvage:
    """Find out whether a shard is whole, and what its commit mark should say.

    A shard for which an entry vouches must have the digest on record. One whose entries are all
    lost must at least be whole in structure, of this store, and finite.

    Args:
        store: The store, for its header and paths.
        number: The shard.
        candidates: Entries that were found for it: its commit mark, the manifest's copy.
        directions: As of `check_shard`.
    """
    try:
        entries = list(candidates) or [_provisional(store, number)]
        looks = [check_shard(store, entry, full=True, directions=directions) for entry in entries]
    except ShardCorruptError as error:
        return _damaged(store, number, candidates, [str(error)])
    place = next((place for place, look in enumerate(looks) if not look.problems), None)
    keys = looks[place].keys if place is not None else None
    if place is None or keys is None:
        problems = [f"{problem.kind}: {problem.detail}" for problem in looks[0].problems]
        return _damaged(store, number, candidates, problems)
    if len(set(keys)) < len(keys):
        return _damaged(store, number, candidates, ["a key has two rows"])
    return _keep(store, entries[place], candidates, keys)


def settle_repeats(store: Store, found: list[Salvage]) -> list[Salvage]:
    """See to keys that several shards account for: retried rejects, or rows that exist twice."""
    by_number = {item.number: item for item in found}

    def keys_of(number: int) -> list[str]:
        return by_number[number].input_keys(store)

    census = KeyCensus[int](keys_of)
    for item in found:
        if item.entry is not None:
            census.add(item.number, keys_of(item.number))
    repeated = census.repeated()
    for number, other in _second_rows(store, by_number, repeated).items():
        keys = keys_of(number)
        problem = f"nothing vouches for it, and keys of its rows have rows in shard {other}"
        by_number[number] = Salvage(number=number, problems=[problem], keys=keys)
    kept = {item.number for item in by_number.values() if item.entry is not None}
    retries = Counter(
        number
        for numbers in repeated.values()
        for number in [number for number in numbers if number in kept][1:]
    )
    entries = [item.entry for item in by_number.values() if item.entry is not None]
    if sum(entry.retries for entry in entries) != retries.total():
        for entry in entries:
            corrected = entry._replace(retries=retries[entry.number])
            by_number[entry.number] = replace(by_number[entry.number], entry=corrected)
    return list(by_number.values())


def _keep(
    store: Store, entry: ShardEntry, candidates: Sequence[ShardEntry], keys: Sequence[str]
) -> Salvage:
    """A whole shard, with lists that account for its rows: those that stand, or new ones.

    Rows are never given up for a list. An input that only a lost list knew has no outcome any
    more and is left to the next run; one whose size and time are lost is kept by its key.
    """
    number, rows = entry.number, set(keys)
    known = {record.key: record for record in _sound_inputs(store, number, candidates) or ()}
    listed = _sound_rejects(store, number, candidates)
    rejects = [reject for reject in listed if reject.key not in rows]
    kept = sorted(rows | {reject.key for reject in rejects})
    if not kept:
        return _damaged(store, number, candidates, ["it has no rows, and its rejects are lost"])
    inputs = [known.get(key, Input(key, 0, 0)) for key in kept]
    lists = inputs_to_bytes(inputs), rejects_to_bytes(sorted(rejects))
    digests = [sha256_bytes(data) if data else None for data in lists]
    listing = listing_to_bytes(inputs)
    is_digested = any(record.sha256 for record in inputs)
    made = entry._replace(
        name=store.layout.stem(number),
        rows=len(rows),
        rejects=len(rejects),
        inputs=len(kept),
        retries=min(entry.retries, len(kept)),
        inputs_sha256=digests[0] or "",
        rejects_sha256=digests[1],
        first_key=kept[0],
        last_key=kept[-1],
        listing_sha256=sha256_bytes(listing) if is_digested else None,
    )
    paths = store.layout.inputs(number), store.layout.rejects(number)
    found = [sha256_file(path) if path.exists() else None for path in paths]
    most = max((candidate.inputs for candidate in candidates), default=len(known))
    return Salvage(
        number=number,
        entry=made,
        is_proven=bool(candidates),
        lists=None if found == digests else lists,
        num_dropped=max(0, most - len(kept)),
    )


def _sound_inputs(
    store: Store, number: int, candidates: Sequence[ShardEntry]
) -> list[Input] | None:
    """The list of inputs, unless it is lost or not the one on record."""
    path = store.layout.inputs(number)
    wanted = {candidate.inputs_sha256 for candidate in candidates}
    if not path.exists() or (wanted and sha256_file(path) not in wanted):
        return None
    try:
        return store.read_inputs(number)
    except ManifestError:
        return None


def _sound_rejects(store: Store, number: int, candidates: Sequence[ShardEntry]) -> list[Reject]:
    """The list of rejects; empty when it is lost or not the one on record."""
    path = store.layout.rejects(number)
    wanted = {candidate.rejects_sha256 for candidate in candidates}
    if not path.exists() or (wanted and sha256_file(path) not in wanted):
        return []
    try:
        return store.read_rejects(number)
    except ManifestError:
        return []


def _damaged(
    store: Store, number: int, candidates: Sequence[ShardEntry], problems: list[str]
) -> Salvage:
    known = _sound_inputs(store, number, candidates) or ()
    return Salvage(number=number, problems=problems, keys=[record.key for record in known])


def _provisional(store: Store, number: int) -> ShardEntry:
    """The entry of a shard for which nothing vouches: what the file itself says.

    Raises:
        ShardCorruptError: The file is missing, cut or no shard.
    """
    path = store.layout.shard(number)
    rows = count_shard_rows(path)
    return ShardEntry(
        name=store.layout.stem(number),
        number=number,
        rows=rows,
        rejects=0,
        inputs=rows,
        size_bytes=path.stat().st_size,
        sha256=sha256_file(path),
        inputs_sha256="",
        first_key="",
        last_key="",
    )


def _second_rows(
    store: Store, by_number: Mapping[int, Salvage], repeated: Mapping[str, list[int]]
) -> dict[int, int]:
    """Shards that nothing vouches for and whose rows another shard has, with that shard."""
    involved = sorted({number for numbers in repeated.values() for number in numbers})
    entries = {number: by_number[number].entry for number in involved}
    rows = {n: set(shard_keys(store, entry)) for n, entry in entries.items() if entry}
    second: dict[int, int] = {}
    for key, numbers in repeated.items():
        holders = [n for n in numbers if key in rows[n] and n not in second]
        holders.sort(key=lambda number: not by_number[number].is_proven)
        second |= {n: holders[0] for n in holders[1:] if not by_number[n].is_proven}
    return second
