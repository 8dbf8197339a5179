"""One thread of torch for each test and for each run that it starts: two sessions of tests share two cores."""

from __future__ import annotations

import os

# The threads of OpenMP spin while they wait for one another, so that with more of them than cores all wait for long.
os.environ.setdefault("OMP_NUM_THREADS", "1")
