"""The real worker on a machine whose torch, asked at last, does not find the device."""

from __future__ import annotations

import sys

from powerbench import worker
from powerbench.devices import DEVICES
from powerbench.devices.cpu import Cpu


class Gone(Cpu):
    """Was there when the driver was asked."""

    def confirm(self) -> str | None:
        return "torch finds no GPU that it can use: see whether `nvidia-smi` lists one."


if __name__ == "__main__":
    DEVICES["gone"] = Gone()
    raise SystemExit(worker.main(sys.argv[1:]))
