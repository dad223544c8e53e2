"""Ready-made graphs on the public face, importable and servable like any user's graph.

    agentmatrix example          # lists them
    agentmatrix example hello    # runs one

In a clone this package is `graphs`; in a wheel it is `agentmatrix.graphs`, since a project may have its own `graphs`.
Its modules import each other by relative names, so that both work.
"""
