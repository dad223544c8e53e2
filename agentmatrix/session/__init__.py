"""The conversation of a run: both halves side by side, from the rules of its frames to the objects that it lends."""
