"""``python read_page.py URL TOKEN``: prints what a component of the control plane serves there.

Its ports are open to the machine ``control`` alone, so this runs there, as a file of its own. Certificates are
self-signed and are not looked at.
"""

from __future__ import annotations

import ssl
import sys
from urllib.request import Request, urlopen


def main(url: str, token: str) -> None:
    # Nothing but the component itself listens on that loopback.
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    request = Request(url, headers={"Authorization": f"Bearer {token}"})  # noqa: S310 - of our own making
    with urlopen(request, timeout=20, context=context if url.startswith("https:") else None) as answer:  # noqa: S310
        sys.stdout.write(answer.read().decode())


if __name__ == "__main__":
    main(*sys.argv[1:])
