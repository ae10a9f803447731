"""Consumers and workers: what is in hand (without I/O), and who moves it: threads, or tasks of an event loop."""
