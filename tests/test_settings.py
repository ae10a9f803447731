"""The settings: their defaults, the values that each accepts, and the one line that refuses any other."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from settings import SETTINGS, BadSetting, Settings, find_misspelled, read
from tests.servers import ROOT


def test_nothing_needs_to_be_set() -> None:
    settings = read({})
    assert settings == Settings()
    assert settings.embedded is True
    assert settings.data_dir == ROOT / "instance"
    assert (settings.redis_url, settings.server_url) == ("", f"unix://{ROOT}/instance/valkey.sock")
    assert (settings.queue_name, settings.queue_prefix, settings.tokens) == ("default", "queue:", ())
    assert (settings.host, settings.port, settings.web_concurrency) == ("localhost", 5000, 2)
    assert (settings.max_message_bytes, settings.max_body_bytes) == (1 << 20, 16 << 20)
    assert (settings.max_deliveries, settings.trusted_hosts) == (5, ())


def test_an_empty_value_counts_as_none() -> None:
    names = ["REDIS_URL", "QUEUE_NAME", "API_TOKEN", "API_TOKEN_FILE", "TRUSTED_HOSTS", "DATA_DIR", "HOST", "PORT"]
    assert read(dict.fromkeys(names, "")) == read({})


def test_a_variable_that_is_spelled_almost_like_a_setting_is_found() -> None:
    env = dict.fromkeys(["WEB_CONCURENCY", "REDIS_URI", "PORT", "PATH", "HOSTNAME", "CF_API_TOKEN", "REDIS_HOST"], "1")
    assert find_misspelled(env) == {"WEB_CONCURENCY": "WEB_CONCURRENCY", "REDIS_URI": "REDIS_URL"}


def test_each_setting_has_a_row() -> None:
    assert all(row.name and row.allowed and row.doc for row in SETTINGS)
    assert {row.name for row in SETTINGS} >= {"REDIS_URL", "API_TOKEN", "API_TOKEN_FILE", "PORT", "LOG_REQUESTS"}


def test_gunicorns_master_reads_them_without_modules_that_gevent_must_patch_first() -> None:
    code = "import sys, settings; print(sorted({'redis', 'socket', 'ssl', 'threading'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_relative_paths_start_at_the_folder_of_the_app(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert read({"DATA_DIR": "data"}).data_dir == ROOT / "data"
    assert read({"DATA_DIR": "/data"}).data_dir == Path("/data")


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost",
        "redis://localhost:6379/3",
        "redis://user:p%40ss@[::1]:6379/0?socket_timeout=2.5",
        "rediss://redis.example:6380?ssl_cert_reqs=required&ssl_ca_certs=/etc/ca.pem",
        "unix:///run/redis.sock?db=2&password=secret",
        "unix://user:secret@/run/redis.sock",
        "redis://",
        "redis://:p@ss@localhost",
        "redis+sentinel://user:p%40ss@h1,h2:26380,[::1]:26379/mymaster/3?sentinel_username=s&sentinel_password=p%26w",
        "rediss+sentinel://h1/mymaster?ssl_ca_certs=/etc/ca.pem",
        "redis+cluster://h1,h2:7000",
        "rediss+cluster://:secret@h1/?ssl_cert_reqs=none&socket_timeout=2",
    ],
)
def test_a_valid_redis_url_is_kept(url: str) -> None:
    settings = read({"REDIS_URL": url})
    assert (settings.redis_url, settings.server_url, settings.embedded) == (url, url, False)


BAD: list[tuple[str, str]] = [
    ("REDIS_URL", "localhost:6379"),
    ("REDIS_URL", "http://user:s3cr3t@localhost"),
    ("REDIS_URL", "redis://:s3cr3t@localhost:port"),
    ("REDIS_URL", "redis://:s3cr3t@localhost:99999"),
    ("REDIS_URL", "redis://:s3cr3t@[::1"),
    ("REDIS_URL", "redis://:s3cr3t@localhost/queue"),
    ("REDIS_URL", "redis://:s3cr3t@localhost?retry_on_timeout=true"),
    ("REDIS_URL", "redis://:s3cr3t@localhost?decode_responses=true"),
    ("REDIS_URL", "redis://:s3cr3t@localhost?max_connections=5"),
    ("REDIS_URL", "redis://:s3cr3t@localhost?socket_timeout=soon"),
    ("REDIS_URL", "redis://:s3cr3t@localhost?ssl_ca_certs=/etc/ca.pem"),
    ("REDIS_URL", "redis://:s3cr3t@localhost?nonsense"),
    ("REDIS_URL", "redis://:s3cr3t@localhost?socket_timeout=0"),
    ("REDIS_URL", "redis://:s3cr3t@localhost?socket_connect_timeout=0.0"),
    ("REDIS_URL", "redis://:s3cr3t@localh\udcffst"),
    ("REDIS_URL", "redis://:s3cr3t@a b"),
    ("REDIS_URL", "redis://user#s3cr3t@localhost"),
    ("REDIS_URL", "redis://:s3cr3t?s3cr3t=1@localhost"),
    ("REDIS_URL", "unix://redis.sock"),
    ("REDIS_URL", "redis+sentinel://:s3cr3t@h1,h2"),
    ("REDIS_URL", "redis+sentinel://:s3cr3t@h1,h2/"),
    ("REDIS_URL", "redis+sentinel://:s3cr3t@h1,/mymaster"),
    ("REDIS_URL", "redis+sentinel://:s3cr3t@h1:0/mymaster"),
    ("REDIS_URL", "redis+sentinel://:s3cr3t@h1/mymaster/x"),
    ("REDIS_URL", "redis+sentinel://:s3cr3t/s3cr3t@h1/mymaster"),
    ("REDIS_URL", "redis+sentinel://:s3cr3t@h1/mymaster?ssl_ca_certs=/etc/ca.pem"),
    ("REDIS_URL", "redis+cluster://:s3cr3t@h1,h2:99999"),
    ("REDIS_URL", "redis+cluster://:s3cr3t@h1,h2/1"),
    ("REDIS_URL", "redis+cluster://:s3cr3t@h1?db=1"),
    ("REDIS_URL", "redis+cluster://:s3cr3t@h1?sentinel_password=s3cr3t"),
    ("REDIS_URL", "redis+cluster://:s3cr3t@h1#s3cr3t"),
    ("REDIS_URL", "redis+other://:s3cr3t@h1"),
    ("DATA_DIR", "/tmp/\udcff"),
    ("HOST", "127.0.0.1\n"),
    ("HOST", "\udcff"),
    ("REDIS_URL", "unix:"),
    ("QUEUE_NAME", "a b"),
    ("QUEUE_NAME", "ž"),
    ("QUEUE_NAME", "x" * 129),
    ("QUEUE_NAME", "a\n"),
    ("QUEUE_PREFIX", "a{b}"),
    ("QUEUE_PREFIX", "a b"),
    ("QUEUE_PREFIX", "ž"),
    ("API_TOKEN", "short"),
    ("API_TOKEN", "with a space in it"),
    ("API_TOKEN", "žžžžžžžžžž"),
    ("API_TOKEN_FILE", "/nowhere/at/all"),
    ("API_TOKEN_FILE", "/dev/null"),
    ("API_TOKEN_FILE", "/"),
    ("TRUSTED_HOSTS", "*"),
    ("TRUSTED_HOSTS", "example.com:8080"),
    ("TRUSTED_HOSTS", "a.example,http://b.example"),
    ("MAX_MESSAGE_BYTES", "0"),
    ("MAX_BODY_BYTES", "16M"),
    ("MAX_DELIVERIES", "-1"),
    ("MAX_DELIVERIES", "1.5"),
    ("MAX_BLOCKED_CLIENTS", "x"),
    ("PORT", "-1"),
    ("LABEL", "x" * 25),
    ("LABEL", "two\nlines"),
    ("LABEL", "\udcff"),
    ("USER_HEADER", "Remote User"),
    ("PORT", "65536"),
    ("PORT", "٥٠٠٠"),
    ("PORT", "9" * 5000),
    ("WEB_CONCURRENCY", "0"),
    ("WEB_CONCURRENCY", "1_0"),
    ("LOG_REQUESTS", "yes"),
]


@pytest.mark.parametrize(("name", "value"), BAD, ids=lambda value: value[:50])
def test_a_bad_value_is_refused_in_one_line_that_names_it(name: str, value: str) -> None:
    with pytest.raises(BadSetting) as caught:
        read({name: value})
    line = str(caught.value)
    assert line.startswith(name) and "\n" not in line
    assert "s3cr3t" not in line


def test_a_token_comes_from_one_place(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("a-long-enough-token\n")
    assert read({"API_TOKEN_FILE": str(file)}).api_tokens == (b"a-long-enough-token",)
    assert read({"API_TOKEN": "a-long-enough-token"}).api_tokens == (b"a-long-enough-token",)
    with pytest.raises(BadSetting, match="keep one"):
        read({"API_TOKEN": "a-long-enough-token", "API_TOKEN_FILE": str(file)})


def test_trusted_hosts_are_names_separated_by_commas() -> None:
    assert read({"TRUSTED_HOSTS": " A.example, .b.example ,,"}).trusted_hosts == ("a.example", ".b.example")


@pytest.mark.parametrize("command", [["app.py"], ["-m", "gunicorn"]], ids=["python app.py", "gunicorn"])
def test_a_bad_setting_stops_the_start_with_one_line(command: list[str]) -> None:
    env: dict[str, Any] = {"PATH": os.environ["PATH"], "PORT": "seventy"}
    done = subprocess.run([sys.executable, *command], cwd=ROOT, env=env, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "Cannot start: PORT must be an integer from 0 to 65535, not 'seventy'.\n"
