"""The pure core: total functions over frozen values. No clock, file, environment, thread or logger in here."""
