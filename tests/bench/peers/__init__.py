"""What the agent is measured against, in the same run and on the same simulated library."""
