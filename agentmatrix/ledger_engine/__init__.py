"""The engine: LangGraph's loop with supersteps that stay open, so that a node starts when its own inputs are there."""
