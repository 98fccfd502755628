"""A program that says how it was started, and ends as its first argument says (``test_programs``)."""

from __future__ import annotations

import json
import os
import sys
import threading

if __name__ == "__main__":
    facts = {
        "arguments": sys.argv[1:],
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "input": sys.stdin.read(),
        "threads": threading.active_count(),
    }
    print(json.dumps(facts), flush=True)
    print("said", file=sys.stderr)
    if sys.argv[1] == "stay":
        threading.Event().wait()
    sys.exit(int(sys.argv[1]))
