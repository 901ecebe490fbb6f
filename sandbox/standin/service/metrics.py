# SPDX-License-Identifier: GPL-3.0-or-later
"""Telegraf and the OpenTelemetry collector: take StatsD datagrams, count them, say how many."""

from __future__ import annotations

import os
import socket

from . import base

COUNT = {"datagrams": 0}


def _datagrams(port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("", port))
        while True:
            server.recv(65536)
            COUNT["datagrams"] += 1


def _metrics(path: str) -> base.Answer:
    if path.split("?", 1)[0] == "/metrics":
        text = f"# TYPE standin_statsd_datagrams_total counter\nstandin_statsd_datagrams_total {COUNT['datagrams']}\n"
        return 200, "text/plain; version=0.0.4", text.encode()
    return base.basics(path)


def check_toml(folder: str) -> None:
    import tomllib

    for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
        path = os.path.join(folder, name)
        if name.startswith(".") or not os.path.isfile(path):
            continue
        with open(path, "rb") as stream:
            try:
                tomllib.load(stream)
            except tomllib.TOMLDecodeError as exc:
                raise base.Refusal(f"{path}: invalid TOML: {exc}") from exc


def run(role: str) -> int:
    if role == "telegraf":
        check_toml("/etc/telegraf/telegraf.d")
        if base.flag("STANDIN_PROMETHEUS"):
            base.background(base.serve_http, 9273, _metrics)
    else:
        base.background(base.accept, base.listen(4317), lambda connection: connection.close())
    base.background(_datagrams, 8125)
    base.background(base.serve_http, 8080, _metrics)
    base.log("ready")
    return base.until_told()
