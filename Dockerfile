FROM python:3.13-slim

ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1

WORKDIR /app
# In a layer of its own, so that a change to the app reinstalls nothing. Wheels only: there is no compiler here.
# The lock has a hash for every package, so nothing else can be installed; `make lock` updates it.
COPY requirements.lock .
RUN pip install --no-cache-dir --only-binary :all: --require-hashes --root-user-action ignore -r requirements.lock \
 && mkdir /data && chown 10001:10001 /data
# .dockerignore admits only the files of the app.
COPY . .

# The app listens on all addresses of the container. It starts only with API_TOKEN, or with ALLOW_UNAUTHENTICATED=1 if
# the port is published on 127.0.0.1 only, as in docker-compose.yaml.
# Without REDIS_URL the app runs its own Valkey in /data: mount a volume there to keep the messages.
ENV HOST=0.0.0.0 DATA_DIR=/data
USER 10001:10001
EXPOSE 5000
STOPSIGNAL SIGTERM

HEALTHCHECK --interval=5s --timeout=5s --start-period=30s CMD ["python", "-c", \
    "import os, urllib.request as u; u.urlopen(f'http://127.0.0.1:{os.environ.get(\"PORT\", 5000)}/healthz', timeout=4)"]

# gunicorn.conf.py has all other options. The workers' heartbeat files need a writable folder, even if nothing else is.
CMD ["gunicorn", "--worker-tmp-dir", "/dev/shm"]
