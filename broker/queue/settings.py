"""Settings: the limits of a queue. Scripts that take messages or return them apply them (`broker/lua/limits.lua`)."""

from broker import script
from broker.models import QueueSettings
from broker.queue.base import ScriptedQueue


class SettingsOperations(ScriptedQueue):
    """The operations on the settings of a queue, which stay when it is empty."""

    def settings(self) -> QueueSettings:
        """Return the settings."""
        names = list(vars(QueueSettings()))
        found = self.client.hmget(self.key_prefix + "settings", names)
        return QueueSettings(*(kind(value or 0) for kind, value in zip((int, float, int), found, strict=True)))

    def set_settings(self, **settings: float) -> None:
        """Change the settings that are named; 0 removes one. Waiting clients notice at once."""
        values = [part for name, value in settings.items() for part in (name, value or "")]
        self._run(script.TIDY, "set", *values)
