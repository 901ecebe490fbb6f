# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Configuration and environment of one machine runner, in the keys that the vendor documents for machine runner 3 and no others."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Optional
from urllib.parse import urlsplit

HOME = "/var/lib/circleci-runner"
WORKING_DIRECTORY = f"{HOME}/workdir"
TASK_AGENT_DIRECTORY = f"{HOME}/libexec"

RESOURCE_CLASS = re.compile(r"[a-z0-9_-]+/[A-Za-z0-9:_+-]+")
_NAME = re.compile(r"[A-Za-z0-9.()_-]+")
_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")
_ADDRESS = re.compile(r"(\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+):\d{1,5}")
_TOKEN = re.compile(r"[A-Za-z0-9]+")
_GRACE = 300
"""Seconds that a runner has to end beyond the longest job: 18300 for 5 hours, as the vendor's units have it."""
_OPTION = "circleci_runner_"


def seconds_of(text: str) -> Optional[int]:
    """Seconds of a duration as the runner reads it (``5h``, ``1h30m``, ``30s``); None when it is none."""
    match = _DURATION.fullmatch(text)
    if match is None or not text:
        return None
    hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return hours * 3600 + minutes * 60 + seconds


def _url_problem(text: str) -> str:
    parts = urlsplit(text)
    try:
        good = parts.scheme == "https" and bool(parts.hostname) and parts.path in ("", "/") and not parts.query and "@" not in parts.netloc and parts.port != 0
    except ValueError:
        good = False
    return "" if good else f"{_OPTION}url: found {text!r}; allowed is https:// and the domain of the server, without a path."


def _proxy_problem(name: str, text: str) -> str:
    parts = urlsplit(text)
    if not text or (parts.scheme in ("http", "https") and parts.hostname and not re.search(r"\s", text)):
        return ""
    return f"{_OPTION}{name}: found a value that is not shown; allowed is a URL like http://proxy.example.com:3128, or nothing."


def problems(options: Mapping[str, Any]) -> list[str]:
    """What is wrong with the options, all of it. No secret is repeated."""
    found = []
    if not options["version"]:
        found.append(
            f"{_OPTION}version: the bundle that was loaded has no machine runner. Make it anew with machine-runner in circleci_bundle_optional_files, carry it "
            "over, and run the same command again."
        )
    token = str(options["token"])
    if not _TOKEN.fullmatch(token):
        state = "is empty" if not token else "has other characters than letters and digits"
        found.append(
            f"{_OPTION}token: it {state}. It is the token of {options['resource_class']} that `circleci runner token create` shows once; "
            "docs/how-to/runners.md has the commands."
        )
    found.append(_url_problem(str(options["url"])))
    if not _NAME.fullmatch(str(options["name"])):
        found.append(f"{_OPTION}name: found {options['name']!r}; allowed are letters, digits and . ( ) - _, and each name once in the organization.")
    if not RESOURCE_CLASS.fullmatch(str(options["resource_class"])):
        found.append(
            f"{_OPTION}resource_class: found {options['resource_class']!r}; allowed is <namespace>/<class>, as in acme/linux. A namespace has lower case "
            "letters, digits, _ and -, a class letters, digits and : _ - +."
        )
    for name, empty in (("max_run_time", False), ("idle_timeout", True)):
        text = str(options[name])
        if (text or not empty) and not seconds_of(text):
            found.append(f"{_OPTION}{name}: found {text!r}; allowed is a duration of hours, minutes and seconds like 5h, 1h30m or 30s.")
    folder = str(options["working_directory"])
    if not folder.startswith("/") or folder.rstrip("/") == "" or "%s" in folder or ".." in folder.split("/"):
        found.append(
            f"{_OPTION}working_directory: found {folder!r}; allowed is the full path of a folder of its own. Machine runner 3 puts nothing in the place of %s."
        )
    prefix = list(options["command_prefix"])
    if prefix and not str(prefix[0]).startswith("/"):
        found.append(f"{_OPTION}command_prefix: found {prefix[0]!r} as its program; allowed is a full path, as in [/usr/bin/sudo, -niHu, build, --].")
    if prefix and not options["privileged"]:
        found.append(f"{_OPTION}command_prefix: a program that changes the user needs {_OPTION}privileged: true.")
    address = str(options["ssh_advertise_address"])
    if address and not _ADDRESS.fullmatch(address):
        found.append(f"{_OPTION}ssh_advertise_address: found {address!r}; allowed is host:port as users reach it, for instance runner1.example.com:54782.")
    found += [_proxy_problem(name, str(options[name])) for name in ("http_proxy", "https_proxy")]
    return [item for item in found if item]


def _config(options: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    runner: dict[str, Any] = {
        "name": options["name"],
        "working_directory": options["working_directory"],
        "cleanup_working_directory": options["cleanup_working_directory"],
        "task_agent_directory": TASK_AGENT_DIRECTORY,
        "cache_task_agent": options["cache_task_agent"],
        "mode": options["mode"],
        "max_run_time": options["max_run_time"],
        "use_home_ssh_dir_for_checkout_keys": options["use_home_ssh_dir_for_checkout_keys"],
    }
    if options["idle_timeout"]:
        runner["idle_timeout"] = options["idle_timeout"]
    if options["command_prefix"]:
        runner["command_prefix"] = list(options["command_prefix"])
    if options["ssh_advertise_address"]:
        runner["ssh"] = {"advertise_addr": options["ssh_advertise_address"]}
    return {
        "api": {"auth_token": options["token"], "url": str(options["url"]).rstrip("/")},
        "runner": runner,
        "logging": {"level": options["log_level"], "format": "text", "file": "-"},
    }


def _yaml(config: Mapping[str, Mapping[str, Any]]) -> str:
    # A value in JSON is one in YAML, quoted in every case.
    lines = ["# Written by onprem.circleci_server; changes are overwritten."]
    for section, values in config.items():
        lines += [f"{section}:", *(f"  {key}: {json.dumps(value)}" for key, value in values.items())]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    # As systemd.exec(5) reads an environment file: in double quotes a backslash stands before these.
    return '"' + re.sub(r'(["\\`$])', r"\\\1", text) + '"'


def _environment(options: Mapping[str, Any]) -> str:
    found: dict[str, str] = {}
    if options["http_proxy"] or options["https_proxy"]:
        direct = dict.fromkeys([str(urlsplit(str(options["url"])).hostname), *options["no_proxy"], "localhost", "127.0.0.1"])
        found = {"HTTP_PROXY": options["http_proxy"], "HTTPS_PROXY": options["https_proxy"], "NO_PROXY": ",".join(direct)}
    lines = []
    for name, value in found.items():
        # Programs of jobs look for one or the other.
        lines += [f"{spelled}={_quoted(str(value))}" for spelled in (name, name.lower()) if value]
    return "\n".join(lines) + "\n" if lines else ""


def service(options: Mapping[str, Any]) -> dict[str, Any]:
    """``config`` and ``environment`` as texts, ``stop_seconds`` that a job has to end, and folders. The options have no problems by then."""
    longest = seconds_of(str(options["max_run_time"])) or 0
    return {
        "config": _yaml(_config(options)),
        "environment": _environment(options),
        "stop_seconds": longest + _GRACE,
        "home": HOME,
        "own_working_directory": options["working_directory"] == WORKING_DIRECTORY,
        "task_agent_directory": TASK_AGENT_DIRECTORY,
    }
