"""Where shards are worked on: naming a Dask cluster, connecting to it, running shards there."""
