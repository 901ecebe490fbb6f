# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from typing import Any

import pytest
import yaml
from ansible_collections.onprem.circleci_server.plugins.plugin_utils.runner import problems, seconds_of, service

TOKEN = "c0ffee" * 13 + "aa"
GOOD: dict[str, Any] = {
    "version": "3.1.11", "url": "https://ci.example.com", "token": TOKEN, "name": "runner1.example.com", "resource_class": "acme/linux", "mode": "continuous",
    "max_run_time": "5h", "idle_timeout": "", "working_directory": "/var/lib/circleci-runner/workdir", "cleanup_working_directory": True, "cache_task_agent": False,
    "command_prefix": [], "use_home_ssh_dir_for_checkout_keys": False, "ssh_advertise_address": "", "log_level": "info", "http_proxy": "", "https_proxy": "",
    "no_proxy": [], "privileged": False,
}  # fmt: skip


def test_configuration_has_the_documented_keys_and_no_others() -> None:
    found = service(GOOD)
    assert yaml.safe_load(found["config"]) == {
        "api": {"auth_token": TOKEN, "url": "https://ci.example.com"},
        "runner": {
            "name": "runner1.example.com", "working_directory": "/var/lib/circleci-runner/workdir", "cleanup_working_directory": True,
            "task_agent_directory": "/var/lib/circleci-runner/libexec", "cache_task_agent": False, "mode": "continuous", "max_run_time": "5h",
            "use_home_ssh_dir_for_checkout_keys": False,
        },
        "logging": {"level": "info", "format": "text", "file": "-"},
    }  # fmt: skip
    assert found["environment"] == "" and found["own_working_directory"]


def test_what_is_chosen_is_in_it() -> None:
    chosen = {"command_prefix": ["/usr/bin/sudo", "-niHu", "build", "--"], "privileged": True, "idle_timeout": "30m", "ssh_advertise_address": "[2001:db8::1]:54782"}
    runner = yaml.safe_load(service({**GOOD, **chosen})["config"])["runner"]
    assert (runner["command_prefix"], runner["idle_timeout"], runner["ssh"]) == (chosen["command_prefix"], "30m", {"advertise_addr": "[2001:db8::1]:54782"})


def test_a_stop_waits_longer_than_the_longest_job() -> None:
    assert service(GOOD)["stop_seconds"] == 18300
    assert service({**GOOD, "max_run_time": "1h30m"})["stop_seconds"] == 5700


def test_proxy_is_told_in_both_spellings_and_the_server_is_reached_without_it() -> None:
    text = service({**GOOD, "https_proxy": 'http://me:pa"$s@proxy.example.com:3128', "no_proxy": ["store.example.com"]})["environment"]
    lines = text.splitlines()
    assert lines[0] == r'HTTPS_PROXY="http://me:pa\"\$s@proxy.example.com:3128"' and lines[1].startswith("https_proxy=")
    assert lines[2] == 'NO_PROXY="ci.example.com,store.example.com,localhost,127.0.0.1"' and "HTTP_PROXY" not in [line.split("=")[0] for line in lines]


@pytest.mark.parametrize(
    ("text", "seconds"), [("5h", 18000), ("1h30m", 5400), ("30s", 30), ("0s", 0), ("", None), ("5", None), ("5 h", None), ("1d", None), ("30m1h", None)]
)
def test_durations(text: str, seconds: int | None) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("version", "", "circleci_bundle_optional_files"),
        ("token", "", "is empty"),
        ("token", "<< AUTH_TOKEN >>", "other characters than letters and digits"),
        ("url", "http://ci.example.com", "allowed is https://"),
        ("url", "ci.example.com", "allowed is https://"),
        ("url", "https://ci.example.com/api", "without a path"),
        ("name", "runner one", "allowed are letters"),
        ("resource_class", "linux", "allowed is <namespace>/<class>"),
        ("resource_class", "Acme/linux", "lower case"),
        ("max_run_time", "", "allowed is a duration"),
        ("max_run_time", "0s", "allowed is a duration"),
        ("idle_timeout", "soon", "allowed is a duration"),
        ("working_directory", "/", "full path"),
        ("working_directory", "work", "full path"),
        ("working_directory", "/srv/work/%s", "in the place of %s"),
        ("working_directory", "/srv/../etc", "full path"),
        ("command_prefix", ["sudo"], "full path"),
        ("command_prefix", ["/usr/bin/sudo"], "privileged: true"),
        ("ssh_advertise_address", "runner1", "allowed is host:port"),
        ("https_proxy", "proxy.example.com:3128", "allowed is a URL"),
    ],
)
def test_each_problem_names_its_option(option: str, value: Any, told: str) -> None:
    assert problems(GOOD) == []
    found = problems({**GOOD, option: value})
    assert any(text.startswith(f"circleci_runner_{option}: ") and told in text for text in found), found


def test_all_problems_come_together_and_repeat_no_secret() -> None:
    found = problems({**GOOD, "token": "se cret", "https_proxy": "me:hidden@proxy", "name": "", "max_run_time": "x"})
    assert [text.split(":")[0] for text in found] == [f"circleci_runner_{name}" for name in ("token", "name", "max_run_time", "https_proxy")]
    assert "se cret" not in str(found) and "hidden" not in str(found)
