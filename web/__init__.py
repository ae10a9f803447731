"""The HTTP layer: the operations of the API, the pages, and the checks between a request and a queue."""

__version__ = "2.0.0.dev"
