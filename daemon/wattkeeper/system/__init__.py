"""Clock, files, service manager, subprocesses: the only places of the agent that touch them."""
