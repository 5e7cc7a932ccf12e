"""The numbers to hold, measured on the real agent: `python -m tests.bench` prints them beside a peer's."""
