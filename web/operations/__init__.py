"""The operations of the API: each is a view, decorated with the row that describes it. web/api.py lists them all."""
