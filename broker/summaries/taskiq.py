"""Tasks of taskiq, in its JSON form."""

from broker.summaries.parts import Object, Summary, as_text, call, summary

KEYS = frozenset({"task_id", "task_name", "labels"})


def summarize(task: Object) -> Summary | None:
    """Return the summary of a task. Its labels are facts."""
    name, labels = task["task_name"], task["labels"]
    if not isinstance(name, str) or not isinstance(labels, dict):
        return None
    text = call(name, task.get("args"), task.get("kwargs"))
    return summary("taskiq", text, id=task["task_id"], labels=as_text(labels) if labels else None)
