"""Which node may start, what it sees, and what has run. Pure: this room knows no engine, no thread and no saver."""
