"""What reads the bytes of strangers, called with many: benchmarks/trust/fuzz.py does so for an hour each."""

import logging

import pytest
from fuzzing import TARGETS, seeds
from hypothesis import given, settings
from hypothesis import strategies as st

OF_TEXT = [name for name in TARGETS if name != "requests"]  # which wants a model: tests/test_requests.py has its fields


@pytest.mark.parametrize("name", OF_TEXT)
def test_whatever_the_bytes_are_nothing_is_raised_but_what_is_documented(name, tmp_path_factory):
    function, known = TARGETS[name](tmp_path_factory.mktemp(name)), seeds(name)
    logging.disable(logging.CRITICAL)

    @settings(max_examples=30, deadline=None)
    @given(st.binary(max_size=60), st.sampled_from(known), st.integers(0, 2**16), st.integers(0, 40))
    def check(some, seed, at, cut):
        at %= len(seed) + 1
        function(some)
        function(seed[:at] + some + seed[at + cut :])

    try:
        check()
        for seed in known:
            function(seed)
    finally:
        logging.disable(logging.NOTSET)
