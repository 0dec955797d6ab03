# SPDX-License-Identifier: Apache-2.0
"""Exit code 0 when the address answers with a status below 400: the containers' health check."""

from __future__ import annotations

import sys
import urllib.error
import urllib.request

_TIMEOUT_S = 4.0


def main(arguments: list[str]) -> int:
    """Ask the one address in `arguments`, which is here: no proxy of the host's is asked for it."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(arguments[0], timeout=_TIMEOUT_S) as answer:
            return int(answer.status >= 400)
    except (urllib.error.URLError, OSError) as error:
        print(f"{arguments[0]}: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
