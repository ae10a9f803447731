"""How the app is served: gunicorn's worker, hooks, listen addresses and limits. The app imports none of it."""
