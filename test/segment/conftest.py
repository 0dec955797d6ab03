# SPDX-License-Identifier: Apache-2.0
"""Makes the scenes beside this file importable, whatever the import mode."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
