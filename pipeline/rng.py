"""The only place that makes seeds: independent streams named by a run seed and a path of names."""

import hashlib

import numpy as np


def seed_for(run_seed: int, *names: str | int) -> int:
    """A 64-bit seed for one purpose of one run; the same on every machine and process.

    Python's `hash` of a str differs per process, so SHA-256 is used.
    """
    text = "\x1f".join([str(run_seed), *(str(name) for name in names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


def generator_for(run_seed: int, *names: str | int) -> np.random.Generator:
    """A numpy generator seeded by `seed_for`."""
    return np.random.Generator(np.random.Philox(seed_for(run_seed, *names)))
