"""`python -m agentmatrix` and the `agentmatrix` script."""

from __future__ import annotations

from agentmatrix.cli import main

if __name__ == "__main__":
    main()
