#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Runs inside the image of bastion and workstation: Ansible with the few collections that ours depends on.
set -eu
python3 -m venv /opt/onprem/venv
/opt/onprem/venv/bin/pip install --quiet --no-index --find-links /tmp/wheels --no-compile $(grep -v '^ *#' /tmp/workstation-requirements.txt | grep -v '^ansible==' | sed 's/#.*//')
mkdir -p /usr/share/ansible/collections
/opt/onprem/venv/bin/python - <<'PY'
import glob, zipfile
wanted = ("ansible_collections/kubernetes/core/", "ansible_collections/ansible/posix/", "ansible_collections/community/general/")
with zipfile.ZipFile(glob.glob("/tmp/wheels/ansible-1*.whl")[0]) as bundle:
    names = [name for name in bundle.namelist() if name.startswith(wanted) and "/tests/" not in name]
    bundle.extractall("/usr/share/ansible/collections", names)
PY
for program in ansible ansible-config ansible-doc ansible-galaxy ansible-inventory ansible-playbook ansible-vault; do
  ln -sf "/opt/onprem/venv/bin/$program" "/usr/local/bin/$program"
done
/opt/onprem/venv/bin/python -m compileall -q /opt/onprem/venv/lib >/dev/null 2>&1 || true
rm -rf /tmp/wheels /tmp/workstation.sh /tmp/workstation-requirements.txt
