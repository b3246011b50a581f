"""`deltaedit store`: what is in a store, and whether it is whole; one command a module."""

from flows.lazy import LazyGroup

command = LazyGroup(
    name="store",
    package=__name__,
    summaries={
        "info": "What a store holds: columns, counts, fingerprints, rejects by reason.",
        "verify": "Check a store against its manifest.",
        "repair": "Rebuild a manifest from the shards and set damaged shards aside.",
        "merge": "Put the rows of several stores into one.",
        "convert": "Write a store in another format or precision.",
        "import": "Make a store from vectors in another layout.",
        "export": "Write a store's vectors in another layout.",
    },
    help="""Describe, check and change a store.

    Example: deltaedit store info faces.store
    """,
)
