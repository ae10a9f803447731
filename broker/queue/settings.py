"""Settings: the limits of a queue, which `broker/lua/parts/limits.lua` applies when messages are taken."""

from broker import script
from broker.models import QueueSettings
from broker.queue.base import ScriptedQueue


class SettingsOperations(ScriptedQueue):
    """The operations on the settings of a queue, which stay when it is empty."""

    def settings(self) -> QueueSettings:
        """Return the settings."""
        names = list(QueueSettings().as_dict())
        return QueueSettings.from_reply(*self.client.hmget(self.key_prefix + "settings", names))

    def set_settings(self, **settings: float) -> QueueSettings:
        """Change the settings that are named, 0 removes one, and return all. Waiting clients notice it at once."""
        values = [part for name, value in settings.items() for part in (name, value or "")]
        return QueueSettings.from_reply(*self._run(script.TIDY, "set", *values)[0])
