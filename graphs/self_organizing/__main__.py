"""`python -m graphs.self_organizing`."""

import sys

from .table import main

sys.exit(main())
