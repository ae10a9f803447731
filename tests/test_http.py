import json
import urllib.request

from tests.servers import App


def test_what_is_pushed_is_popped(site: App, name: str) -> None:
    urllib.request.urlopen(f"{site.url}/api/queue/{name}/push", data=b"message=hello")
    answer = json.load(urllib.request.urlopen(f"{site.url}/api/queue/{name}/pop", data=b""))
    assert answer == {"success": True, "message": "hello"}
