"""One run over the wire, both halves side by side: the protocol, the drivers, the proxies of the caller's objects."""
