"""What knows HTTP: the routes, the pages, and what stands between a request and a queue."""

__version__ = "1.0.0"
