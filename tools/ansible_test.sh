#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# ansible-test sanity in virtual environments of its own, which it keeps between runs. It would download the bootstrap
# of pip from a fixed address; a file that already lies in its cache is used instead, so that the package index suffices.
set -euo pipefail
cache="$HOME/.ansible/test/cache"
mkdir -p "$cache"
pip=$(python - <<'PY'
from types import SimpleNamespace

from ansible_test._internal.python_requirements import get_venv_packages

print(get_venv_packages(SimpleNamespace(version="3.11"))["pip"])
PY
)
bootstrap="$cache/get_pip_${pip//./_}.py"
if [ ! -s "$bootstrap" ]; then
    cat > "$bootstrap" <<PY
import subprocess, sys
subprocess.run([sys.executable, "-m", "ensurepip"], check=True, stdout=subprocess.DEVNULL)
subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "pip==$pip"], check=True)
PY
fi
exec ansible-test "$@" --venv --requirements --python "$(python -c 'import sys; print("%d.%d" % sys.version_info[:2])')"
