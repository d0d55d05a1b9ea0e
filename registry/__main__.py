"""`python -m registry` is `registry`."""

import sys

from registry.cli import main

sys.exit(main())
