"""The two unix sockets and the metrics' port, as views of the snapshot and doors to the handlers."""
