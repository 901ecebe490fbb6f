#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Makes all keys of one sandbox in one go, inside a container: the machine needs neither openssl nor ssh-keygen.
# Arguments: host names. Output: /out
set -eu
cd /out
umask 077
ssh-keygen -q -t ed25519 -N '' -C bastion -f bastion
for name in "$@"; do
  mkdir -p "ssh/$name"
  ssh-keygen -q -t ed25519 -N '' -C "$name" -f "ssh/$name/ssh_host_ed25519_key"
  ssh-keygen -q -t ecdsa -N '' -C "$name" -f "ssh/$name/ssh_host_ecdsa_key"
done

authority() { # name, subject
  openssl ecparam -name prime256v1 -genkey -noout -out "$1.key"
  openssl req -x509 -new -key "$1.key" -sha256 -days 3650 -subj "$2" -out "$1.crt" \
    -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign
}
issue() { # name, authority, subject, usages, alternative names
  openssl ecparam -name prime256v1 -genkey -noout -out "$1.key"
  { printf 'basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=%s\n' "$4"
    [ -z "$5" ] || printf 'subjectAltName=%s\n' "$5"; } > "$1.ext"
  openssl req -new -key "$1.key" -subj "$3" -out "$1.csr"
  openssl x509 -req -in "$1.csr" -CA "$2.crt" -CAkey "$2.key" -CAcreateserial -sha256 -days 825 -extfile "$1.ext" -out "$1.crt" 2>/dev/null
  rm "$1.csr" "$1.ext"
}
mkdir -p internet kubernetes
authority internet/ca "/CN=Sandbox internet CA (stand-in)"
issue internet/server internet/ca "/CN=Stand-in internet" serverAuth "$INTERNET_NAMES"
authority kubernetes/ca "/CN=kubernetes"
issue kubernetes/apiserver kubernetes/ca "/CN=kube-apiserver" serverAuth "$APISERVER_NAMES"
issue kubernetes/kubelet-client kubernetes/ca "/O=system:masters/CN=kube-apiserver-kubelet-client" clientAuth ""
issue kubernetes/kubelet-server kubernetes/ca "/CN=node1" serverAuth "DNS:node1,DNS:node1.site.example,IP:10.93.0.21"
issue kubernetes/admin kubernetes/ca "/O=system:masters/CN=kubernetes-admin" clientAuth ""
issue kubernetes/controller-manager kubernetes/ca "/CN=system:kube-controller-manager" clientAuth ""
issue kubernetes/scheduler kubernetes/ca "/CN=system:kube-scheduler" clientAuth ""
issue kubernetes/proxy kubernetes/ca "/CN=system:kube-proxy" clientAuth ""
issue kubernetes/node kubernetes/ca "/O=system:nodes/CN=system:node:node1" clientAuth ""
issue kubernetes/coredns kubernetes/ca "/CN=system:coredns" clientAuth ""
authority kubernetes/front-proxy-ca "/CN=front-proxy-ca"
issue kubernetes/front-proxy kubernetes/front-proxy-ca "/CN=front-proxy-client" clientAuth ""
openssl ecparam -name prime256v1 -genkey -noout -out kubernetes/service-accounts.key
openssl ec -in kubernetes/service-accounts.key -pubout -out kubernetes/service-accounts.pub 2>/dev/null
touch complete
