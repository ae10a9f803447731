"""Jobs of Sidekiq 6 to 8, Exq, Faktory and Resque; those of Active Job are shown as the job that they wrap."""

from broker.summaries.parts import Object, Summary, call, joined, member, summary, time_of

SIDEKIQ_KEYS = frozenset({"class", "jid"})
FAKTORY_KEYS = frozenset({"jobtype", "jid"})
RESQUE_KEYS = frozenset({"class", "args"})


def summarize_sidekiq(job: Object) -> Summary | None:
    """Return the summary of a job of Sidekiq, or of Exq, whose ids are UUIDs."""
    if not isinstance(job["jid"], str):
        return None
    return _job("exq" if len(job["jid"]) == 36 else "sidekiq", job, job["class"], job)


def summarize_faktory(job: Object) -> Summary | None:
    """Return the summary of a job of Faktory."""
    return _job("faktory", job, job["jobtype"], job.get("failure"))


def summarize_resque(job: Object) -> Summary | None:
    """Return the summary of a job of Resque, which has nothing but a class and arguments."""
    return _job("resque", job, job["class"], None) if len(job) == 2 else None


def _job(shape: str, job: Object, name: object, failure: object) -> Summary | None:
    args = job.get("args")
    if not isinstance(name, str) or not isinstance(args, (list, type(None))):
        return None
    wrapped = args[0] if args and isinstance(member(args[0], "job_class"), str) else None
    retries = member(failure, "retry_count")  # after the first failure Exq has 1 here, the others 0
    error = [member(failure, name) for name in ("error_class", "errtype", "error_message", "message")]
    return summary(
        shape,
        call(wrapped["job_class"], wrapped.get("arguments")) if wrapped else call(name, args),
        id=job.get("jid") or member(wrapped, "job_id"),
        tries=retries + (shape != "exq") if isinstance(retries, int) else None,
        queue=job.get("queue") or member(wrapped, "queue_name"),
        retry=job.get("retry"),
        priority=job.get("priority"),
        created=time_of(job.get("created_at")),
        enqueued=time_of(job.get("enqueued_at")),
        due=time_of(job.get("at")),
        failed=time_of(member(failure, "failed_at")),
        error=": ".join(text for text in error if isinstance(text, str)),
        tags=joined(job.get("tags")),
    )
