"""Events: of Logstash and Beats, and CloudEvents in their JSON form."""

from broker.summaries.parts import Object, Summary, as_text, member, summary, time_of

LOGSTASH_KEYS = frozenset({"@timestamp", "@version"})
BEATS_KEYS = frozenset({"@timestamp", "@metadata"})
CLOUDEVENTS_KEYS = frozenset({"specversion", "type", "source", "id"})


def summarize_logstash(event: Object) -> Summary | None:
    """Return the summary of an event of Logstash."""
    return _log("logstash", event)


def summarize_beats(event: Object) -> Summary | None:
    """Return the summary of an event of a Beat, which names itself."""
    return _log("beats", event) if member(event["@metadata"], "beat") else None


def summarize_cloudevent(event: Object) -> Summary | None:
    """Return the summary of a CloudEvent: its type and its data."""
    kind, data = event["type"], event.get("data", event.get("data_base64"))
    if not isinstance(kind, str) or not isinstance(event["specversion"], str):
        return None
    return summary(
        "cloudevents",
        kind if data is None else f"{kind} {as_text(data)}",
        id=event["id"],
        source=event["source"],
        subject=event.get("subject"),
        time=time_of(event.get("time")),
    )


def _log(shape: str, event: Object) -> Summary | None:
    time, text, host = time_of(event["@timestamp"]), event.get("message"), event.get("host")
    if time is None:
        return None
    if not isinstance(text, str):  # metrics have none
        text = as_text({name: value for name, value in event.items() if not name.startswith("@")})
    beat = member(event.get("@metadata"), "beat")
    return summary(shape, text, time=time, host=member(host, "name") or host, beat=beat)
