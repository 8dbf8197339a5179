"""The real worker with the real BERT, whose process may grow by 400 MB beyond what torch itself takes."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

from powerbench import worker

HEADROOM = 400 << 20


def limit_memory() -> None:
    from transformers import BertForSequenceClassification

    assert BertForSequenceClassification  # imported before the limit, so that it is the tensors that meet it
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + HEADROOM
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


if __name__ == "__main__":
    limit_memory()
    raise SystemExit(worker.main(sys.argv[1:]))
