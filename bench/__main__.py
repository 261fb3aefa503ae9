"""``python -m bench``."""

import sys
from pathlib import Path

# `python -m` puts the working directory first on the import path, where a user's `random.py` or
# `registry.py` would shadow another module. It is moved to the end, so that plugins can still
# import neighbouring modules. Our own directory is inserted before it, because the import hook of
# an editable installation is tried last.
if not sys.flags.safe_path:
    sys.path += [str(Path(__file__).parent.parent), sys.path.pop(0)]

from bench.cli import main

main()
