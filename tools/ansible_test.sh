#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# ansible_test.sh HOME COMMAND...: ansible-test with its virtual environments below HOME, where they stay between runs.
# It would download the bootstrap of pip from a fixed address; a file that already lies in its cache is used instead, so
# that the package index suffices.
set -euo pipefail
home=$1
shift
mkdir -p "$home/.ansible/test/cache" "$home/.config/pip"
for settings in "$HOME/.pip/pip.conf" "$HOME/.config/pip/pip.conf"; do
    if [ -f "$settings" ]; then
        ln -sf "$settings" "$home/.config/pip/pip.conf"
    fi
done
version=$(python -c 'import sys; print("%d.%d" % sys.version_info[:2])')
pip=$(python - "$version" <<'PY'
import sys
from types import SimpleNamespace

from ansible_test._internal.python_requirements import get_venv_packages

print(get_venv_packages(SimpleNamespace(version=sys.argv[1]))["pip"])
PY
)
cat > "$home/.ansible/test/cache/get_pip_${pip//./_}.py" <<PY
import subprocess, sys
subprocess.run([sys.executable, "-m", "ensurepip"], check=True, stdout=subprocess.DEVNULL)
subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "pip==$pip"], check=True)
PY
HOME=$home exec ansible-test "$@" --python "$version"
