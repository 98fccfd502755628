"""One of two plugin processes on one node, as a program: prepares and unprepares claims it is told on its input.

``python -m tests.kubelet_plugin.prepare.overlap_plugin FOLDER``; each input line is ``prepare UID...`` or ``unprepare
UID...``, each output line a JSON object of answers by UID: null for success, else the reason. Claim ``<word>-<n>`` is
allocated GPU n.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from dra_driver.errors import DriverError
from tests.kubelet_plugin.prepare.node import TestNode, claim, ref, result


def main(folder: Path) -> None:
    node = TestNode(folder, gpus=8)
    engine = node.engine()
    print("ready", flush=True)
    for line in sys.stdin:
        operation, *uids = line.split()
        for uid in uids:
            node.claims.add(claim(uid, result(f"gpu-{uid.rpartition('-')[2]}")))
        call = engine.prepare if operation == "prepare" else engine.unprepare
        answers = call([ref(uid) for uid in uids], timeout=20)
        reasons = {uid: answer.reason if isinstance(answer, DriverError) else None for uid, answer in answers.items()}
        print(json.dumps(reasons), flush=True)
    engine.stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
