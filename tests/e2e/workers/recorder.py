"""Records as `powerbench power` does, from meters that lie where the test says: the keeper starts it as the user.

recorder.py '{"output": ..., "program": ..., "tree": ..., "seconds": ..., "command": [...]}'
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from powerbench.cli.power import record
from powerbench.power import Source
from powerbench.power.powermetrics import Powermetrics
from powerbench.power.rapl import Rapl

asked = json.loads(sys.argv[1])
sources: dict[str, Source] = {
    "powermetrics": Powermetrics(platform="darwin", program=asked["program"]),
    "rapl": Rapl(variables={"POWERBENCH_SYSFS": asked["tree"]}),
}
raise SystemExit(
    record(
        asked.get("command"),
        seconds=asked.get("seconds"),
        power=asked.get("power", "auto"),
        output=Path(asked["output"]),
        json=False,
        sources=sources,
    )
)
