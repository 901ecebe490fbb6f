# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a chart really holds: values keys, images and the keys that move them, workloads, Services, Secrets. It knows no catalog."""

from __future__ import annotations

from .read import STAND_IN, prove_chart, read_chart
from .unpack import ChartFileError, content_digest, unpacked

__all__ = ["STAND_IN", "ChartFileError", "content_digest", "prove_chart", "read_chart", "unpacked"]
