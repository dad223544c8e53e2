"""`Host`: offers graphs to callers on other machines.

- `host`: starts, drains and stops it.
- `hosted_graph`: what it makes of what it is given.
- `servicer`: how the transport calls it.
- `run_log`: what it logs of its runs.
"""

from agentmatrix.host.host import Host
from agentmatrix.host.hosted_graph import graph_types

__all__ = ["Host", "graph_types"]
