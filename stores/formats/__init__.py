"""One module a format: how the rows of one shard lie in one file."""
