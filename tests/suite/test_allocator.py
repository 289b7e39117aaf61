"""What a worker frees stays with it until its job is over: the next step asks the system for nothing."""

import os
import resource
import sys
from pathlib import Path

import pytest
from warm_python import run_warm

from kdzoo.suite.run.allocator import keep_freed_memory

HAS_GLIBC = "glibc" in (os.confstr("CS_GNU_LIBC_VERSION") or "") if hasattr(os, "confstr") else False
pytestmark = pytest.mark.skipif(not HAS_GLIBC, reason="needs glibc")
FAULTS = """
import resource, sys
from kdzoo.suite.run.allocator import keep_freed_memory, return_freed_memory

def faults(count):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(count):
        bytearray(40 * 2**20)  # written, then freed
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()

given_back = faults(5)
kept = keep_freed_memory()
faults(1)
held = faults(5)
before = resident()
return_freed_memory()
print(kept, given_back, held, before - resident())
"""


def faults(tmp_path: Path, **environment: str) -> list[str]:
    done = run_warm([sys.executable, "-c", FAULTS], cwd=tmp_path, env={**os.environ, **environment})
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_blocks_that_are_freed_are_faulted_in_once_and_given_back_at_the_end(tmp_path):
    kept, given_back, held, returned = faults(tmp_path)
    pages = 40 * 2**20 // resource.getpagesize()
    assert kept == "True"
    assert int(held) < pages / 10, "the next block has the pages of the last one"
    assert int(given_back) > int(held)
    assert int(returned) > 30 * 2**20


@pytest.mark.parametrize("name", ["MALLOC_ARENA_MAX", "GLIBC_TUNABLES"])
def test_what_the_environment_says_of_the_allocator_stays(tmp_path, name):
    kept, *_ = faults(tmp_path, **{name: "1"})
    assert kept == "False"


def test_another_c_library_is_left_as_it_is(monkeypatch):
    from kdzoo.suite.run import allocator

    monkeypatch.setattr(allocator, "_glibc", lambda: None)
    assert not keep_freed_memory()
