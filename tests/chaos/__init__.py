"""Whether every joule stays somebody's, once, whatever becomes of the agent."""
