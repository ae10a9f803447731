"""What knows HTTP: the routes, the pages, and what stands between a request and a queue."""
