"""What real cards answered: one JSON file per card and driver, made by ``python -m tests.cards.record``."""
