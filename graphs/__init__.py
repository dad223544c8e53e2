"""Ready-made graphs on the public face, importable and servable like any user's graph."""
