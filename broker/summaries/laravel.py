"""Jobs of Laravel. What PHP has serialized (the properties of the job) is text in the message, and is not read."""

from broker.summaries.parts import Object, Summary, joined, summary, time_of

KEYS = frozenset({"job"})


def summarize(job: Object) -> Summary | None:
    """Return the summary of a job."""
    name = job.get("displayName") or job["job"]
    is_job = {"displayName", "maxTries"} <= job.keys() or {"data", "attempts"} <= job.keys()
    if not isinstance(name, str) or not is_job:
        return None
    return summary(
        "laravel",
        name,
        id=job.get("uuid") or job.get("id"),
        tries=job.get("attempts") or None,
        max_tries=job.get("maxTries"),
        timeout=job.get("timeout"),
        backoff=job.get("backoff"),
        created=time_of(job.get("createdAt") or job.get("pushedAt")),
        expires=time_of(job.get("retryUntil")),
        tags=joined(job.get("tags")),
    )
