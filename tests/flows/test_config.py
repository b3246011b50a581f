import subprocess
import sys

import pytest

from flows import config

FAULTS = """
import resource
import numpy as np
from flows.config import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        first, second = np.ones(2**21), np.ones(2**21)
        del first, second
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

returned = faults()
keep_freed_memory()
faults()
print(returned, faults())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a setting of glibc's malloc")
def test_freed_memory_is_used_again():
    ran = subprocess.run(
        [sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True, timeout=120
    )
    returned, kept = map(int, ran.stdout.split())
    assert kept < returned / 10


def test_elsewhere_than_on_glibc_memory_is_left_alone(monkeypatch):
    asked = []

    class OtherLibc:
        def __getattr__(self, name):
            asked.append(name)
            raise AttributeError(name)

    monkeypatch.setattr(config.ctypes, "CDLL", lambda _: OtherLibc())
    config.keep_freed_memory()
    assert asked == ["mallopt"]
