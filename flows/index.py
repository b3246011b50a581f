"""The Prefect flow `index`: `flows.steps.index` as a recorded run."""

from flows.observe import Observed, flow
from flows.parameters import strict
from flows.steps.index import IndexConfig, index_store

strict(IndexConfig)


@flow(name="index")
def index(config: IndexConfig) -> dict[str, object]:
    """Build the index and the neighbour graph of a store, unless they are made from its rows."""
    with Observed("index", config.store) as run:
        result = index_store(config)
        run.values(result)
        run.link(config.store, "store")
    return result
