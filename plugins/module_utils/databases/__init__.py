# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What database servers say of themselves, by their own protocols: product, version, TLS. Nothing is read beyond that, and nothing is changed."""

from __future__ import annotations

from .link import Link, NoAnswer, ServerFacts
from .mongodb import ask_mongodb
from .postgres import Login, ask_postgres
from .rabbitmq import ask_rabbitmq

__all__ = ["Link", "Login", "NoAnswer", "ServerFacts", "ask_mongodb", "ask_postgres", "ask_rabbitmq"]
