"""A child for the tests of processes: says that it runs, then waits or ends with the code it was given."""

from __future__ import annotations

import os
import sys
import threading

if __name__ == "__main__":
    sys.stdout.write(f"running {os.environ.get('SLEEPER_SECRET', 'without the secret')}\n")
    if len(sys.argv) > 1:
        sys.exit(int(sys.argv[1]))
    threading.Event().wait()
