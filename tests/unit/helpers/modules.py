# SPDX-License-Identifier: GPL-3.0-or-later
"""Running a module in this process, as ansible would."""

from __future__ import annotations

import json
from types import ModuleType
from typing import Any

import pytest
from ansible.module_utils import basic
from ansible.module_utils.testing import patch_module_args


def run_module(module: ModuleType, capsys: pytest.CaptureFixture[str], *, check: bool = False, **options: Any) -> dict[str, Any]:
    """The result of one call."""
    capsys.readouterr()
    with patch_module_args({**options, "_ansible_check_mode": check, "_ansible_diff": True}):
        with pytest.raises(SystemExit):
            module.main()
    basic._ANSIBLE_ARGS = None
    return dict(json.loads(capsys.readouterr().out.strip().splitlines()[-1]))
