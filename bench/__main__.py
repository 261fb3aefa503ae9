"""``python -m bench``."""

import sys
from pathlib import Path

# `python -m` puts the working directory first, where a user's `random.py` or `registry.py` would
# be taken for another. Behind everything else it still serves plugins that import their neighbours;
# in between stands our own folder, for an editable installation is looked up last of all.
if not sys.flags.safe_path:
    sys.path += [str(Path(__file__).parent.parent), sys.path.pop(0)]

from bench.cli import main

main()
