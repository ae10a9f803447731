"""The operations of the API: each is one row, with the view that does it below. api.py lists them all."""
