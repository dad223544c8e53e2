"""What all tests share."""

from __future__ import annotations

import signal

# A shell's background jobs ignore SIGINT and hand that down; tests that press Ctrl-C need it in their children.
signal.signal(signal.SIGINT, signal.default_int_handler)
