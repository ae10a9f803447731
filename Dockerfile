FROM python:3.13-slim

ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1

WORKDIR /app
# In a layer of their own: a change to the app installs nothing again. Wheels only: there is no compiler here.
# The lock has the hash of everything, so nothing else can be installed; `make lock` renews it.
COPY requirements.lock .
RUN pip install --no-cache-dir --only-binary :all: --require-hashes --root-user-action ignore -r requirements.lock \
 && mkdir /data && chown 10001:10001 /data
# .dockerignore lets only the app's own files through.
COPY . .

# It listens on all server.listen of the container, and starts only with API_TOKEN, or with ALLOW_UNAUTHENTICATED=1 where the port is
# published on 127.0.0.1 only, as docker-compose.yaml does.
# Without REDIS_URL the app runs its own Valkey in /data: mount a volume there to keep the messages.
ENV HOST=0.0.0.0 DATA_DIR=/data
USER 10001:10001
EXPOSE 5000
STOPSIGNAL SIGTERM

HEALTHCHECK --interval=5s --timeout=5s --start-period=30s CMD ["python", "-c", \
    "import os, urllib.request as u; u.urlopen(f'http://127.0.0.1:{os.environ.get(\"PORT\", 5000)}/healthz', timeout=4)"]

# What to serve, and how, is in gunicorn.conf.py. The workers' heartbeat files need a writable folder, whatever else is not.
CMD ["gunicorn", "--worker-tmp-dir", "/dev/shm"]
