# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that make node1 a Kubernetes node: certificates, kubeconfigs, systemd units, containerd, CNI, cluster DNS."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import yaml

from . import layout

API_PORT = 6443
NODE = "node1"
PAUSE = "localhost/onprem-sandbox/pause-standin:1"


def apiserver_names() -> str:
    address = layout.host(NODE).address
    names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local", "localhost", NODE, f"{NODE}.{layout.DOMAIN}"]
    addresses = ["127.0.0.1", address, "10.96.0.1"]
    return ",".join([*(f"DNS:{name}" for name in names), *(f"IP:{item}" for item in addresses)])


def kubeconfig(keys: Path, user: str, server: str) -> str:
    def data(name: str) -> str:
        return base64.b64encode((keys / "kubernetes" / name).read_bytes()).decode()

    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "site", "cluster": {"server": server, "certificate-authority-data": data("ca.crt")}}],
        "users": [{"name": user, "user": {"client-certificate-data": data(f"{user}.crt"), "client-key-data": data(f"{user}.key")}}],
        "contexts": [{"name": "site", "context": {"cluster": "site", "user": user}}],
        "current-context": "site",
    }
    return yaml.safe_dump(document, sort_keys=False)


def _unit(description: str, command: list[str], *, after: str = "", before_start: list[str] | None = None, extra: str = "", after_start: list[str] | None = None) -> str:
    lines = ["[Unit]", f"Description={description}"]
    if after:
        lines += [f"After={after}", f"Wants={after}"]
    lines += ["StartLimitIntervalSec=0", "", "[Service]"]
    lines += [f"ExecStartPre={line}" for line in before_start or []]
    lines += ["ExecStart=" + " \\\n  ".join(command)]
    lines += [f"ExecStartPost={line}" for line in after_start or []]
    lines += ["Restart=always", "RestartSec=1"]
    if extra:
        lines.append(extra)
    lines += ["", "[Install]", "WantedBy=multi-user.target", ""]
    return "\n".join(lines)


def files(keys: Path) -> dict[str, tuple[bytes, int]]:
    """Path on the node -> content and mode. All units are enabled, so the node needs nothing but its first boot."""
    address = layout.host(NODE).address
    local = f"https://127.0.0.1:{API_PORT}"
    pki = "/etc/kubernetes/pki"
    out: dict[str, tuple[bytes, int]] = {}

    def put(path: str, text: str | bytes, mode: int = 0o644) -> None:
        out[path] = (text if isinstance(text, bytes) else text.encode(), mode)

    for source in sorted((keys / "kubernetes").iterdir()):
        put(f"{pki}/{source.name}", source.read_bytes(), 0o600 if source.suffix == ".key" else 0o644)
    for user in ("controller-manager", "scheduler", "proxy", "node", "coredns"):
        put(f"/etc/kubernetes/{user}.kubeconfig", kubeconfig(keys, user, local), 0o600)
    put("/etc/kubernetes/admin.kubeconfig", kubeconfig(keys, "admin", f"https://{NODE}.{layout.DOMAIN}:{API_PORT}"), 0o600)

    put(
        "/etc/kubernetes/kubelet.yaml",
        yaml.safe_dump(
            {
                "apiVersion": "kubelet.config.k8s.io/v1beta1",
                "kind": "KubeletConfiguration",
                "authentication": {"anonymous": {"enabled": False}, "webhook": {"enabled": True}, "x509": {"clientCAFile": f"{pki}/ca.crt"}},
                "authorization": {"mode": "Webhook"},
                "tlsCertFile": f"{pki}/kubelet-server.crt",
                "tlsPrivateKeyFile": f"{pki}/kubelet-server.key",
                "clusterDomain": "cluster.local",
                "clusterDNS": [layout.CLUSTER_DNS],
                "resolvConf": "/etc/resolv.conf",
                "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
                "cgroupDriver": "cgroupfs",
                # A container inside a container: limits of the node itself are not ours to set.
                "failCgroupV1": False,
                "failSwapOn": False,
                "cgroupsPerQOS": False,
                "enforceNodeAllocatable": [],
                "localStorageCapacityIsolation": False,
                "evictionHard": {"memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
                "imageGCHighThresholdPercent": 100,
                "maxPods": 250,
                "serializeImagePulls": False,
                "registryPullQPS": 0,
                "podCIDR": "",
                # The kubelet of 1.33.0 panics in doPodResizeAction when a container of a pod that is synchronised has no status yet.
                "featureGates": {"InPlacePodVerticalScaling": False},
            },
            sort_keys=False,
        ),
    )
    put(
        "/etc/containerd/config.toml",
        f"""version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  restrict_oom_score_adj = true
  max_concurrent_downloads = 6
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "/etc/cni/net.d"
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "/etc/containerd/certs.d"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
""",
    )
    put(
        "/etc/cni/net.d/10-bridge.conflist",
        json.dumps(
            {
                "cniVersion": "0.4.0",
                "name": "site",
                "plugins": [
                    {
                        "type": "bridge",
                        "bridge": "cni0",
                        "isGateway": True,
                        "ipMasq": True,
                        "hairpinMode": True,
                        "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.244.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]},
                    },
                    {"type": "portmap", "capabilities": {"portMappings": True}},
                ],
            },
            indent=1,
        ),
    )
    put(
        "/etc/coredns/Corefile",
        f""".:53 {{
  bind {address}
  errors
  health 127.0.0.1:8080
  ready 127.0.0.1:8181
  kubernetes cluster.local in-addr.arpa ip6.arpa {{
    kubeconfig /etc/kubernetes/coredns.kubeconfig
    pods insecure
    fallthrough in-addr.arpa ip6.arpa
    ttl 5
  }}
  forward . {layout.NETWORKS["site"].dns}
  cache 5 {{
    disable denial
  }}
  loadbalance
}}
""",
    )
    # The program is a unit of the node, reached like everywhere: Service kube-dns in kube-system.
    put(
        "/etc/kubernetes/cluster-dns.yaml",
        yaml.safe_dump_all(
            [
                {
                    "apiVersion": "v1",
                    "kind": "Service",
                    "metadata": {"name": "kube-dns", "namespace": "kube-system", "labels": {"k8s-app": "kube-dns", "kubernetes.io/name": "CoreDNS"}},
                    "spec": {
                        "clusterIP": layout.CLUSTER_DNS,
                        "ports": [{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53, "protocol": "TCP"}],
                    },
                },
                {
                    "apiVersion": "discovery.k8s.io/v1",
                    "kind": "EndpointSlice",
                    "metadata": {"name": "kube-dns-node", "namespace": "kube-system", "labels": {"kubernetes.io/service-name": "kube-dns"}},
                    "addressType": "IPv4",
                    "endpoints": [{"addresses": [address], "conditions": {"ready": True}}],
                    "ports": [{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53, "protocol": "TCP"}],
                },
                {
                    "apiVersion": "rbac.authorization.k8s.io/v1",
                    "kind": "ClusterRole",
                    "metadata": {"name": "system:coredns"},
                    "rules": [
                        {"apiGroups": [""], "resources": ["endpoints", "services", "pods", "namespaces"], "verbs": ["list", "watch"]},
                        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
                    ],
                },
                {
                    "apiVersion": "rbac.authorization.k8s.io/v1",
                    "kind": "ClusterRoleBinding",
                    "metadata": {"name": "system:coredns"},
                    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:coredns"},
                    "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "system:coredns"}],
                },
            ],
            sort_keys=False,
        ),
    )
    units = {
        "etcd": _unit(
            "etcd, the store of Kubernetes",
            [
                "/usr/bin/etcd",
                "--name=node1",
                "--data-dir=/var/lib/etcd/member0",
                "--listen-client-urls=http://127.0.0.1:2379",
                "--advertise-client-urls=http://127.0.0.1:2379",
                "--listen-peer-urls=http://127.0.0.1:2380",
                "--initial-advertise-peer-urls=http://127.0.0.1:2380",
                "--initial-cluster=node1=http://127.0.0.1:2380",
                "--log-level=warn",
            ],
            extra="Type=notify",
        ),
        "kube-apiserver": _unit(
            "Kubernetes API server",
            [
                "/usr/local/bin/kube-apiserver",
                f"--advertise-address={address}",
                f"--secure-port={API_PORT}",
                "--etcd-servers=http://127.0.0.1:2379",
                "--authorization-mode=Node,RBAC",
                "--enable-admission-plugins=NodeRestriction",
                "--allow-privileged=true",
                f"--client-ca-file={pki}/ca.crt",
                f"--tls-cert-file={pki}/apiserver.crt",
                f"--tls-private-key-file={pki}/apiserver.key",
                f"--kubelet-client-certificate={pki}/kubelet-client.crt",
                f"--kubelet-client-key={pki}/kubelet-client.key",
                "--kubelet-preferred-address-types=InternalIP",
                f"--service-account-key-file={pki}/service-accounts.pub",
                f"--service-account-signing-key-file={pki}/service-accounts.key",
                "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
                f"--service-cluster-ip-range={layout.SERVICE_CIDR}",
                f"--requestheader-client-ca-file={pki}/front-proxy-ca.crt",
                "--requestheader-allowed-names=front-proxy-client",
                "--requestheader-extra-headers-prefix=X-Remote-Extra-",
                "--requestheader-group-headers=X-Remote-Group",
                "--requestheader-username-headers=X-Remote-User",
                f"--proxy-client-cert-file={pki}/front-proxy.crt",
                f"--proxy-client-key-file={pki}/front-proxy.key",
                "--profiling=false",
            ],
            after="etcd.service",
            extra="Type=notify",
        ),
        "kube-controller-manager": _unit(
            "Kubernetes controller manager",
            [
                "/usr/local/bin/kube-controller-manager",
                "--kubeconfig=/etc/kubernetes/controller-manager.kubeconfig",
                "--authentication-kubeconfig=/etc/kubernetes/controller-manager.kubeconfig",
                "--authorization-kubeconfig=/etc/kubernetes/controller-manager.kubeconfig",
                f"--cluster-cidr={layout.POD_CIDR}",
                f"--service-cluster-ip-range={layout.SERVICE_CIDR}",
                f"--cluster-signing-cert-file={pki}/ca.crt",
                f"--cluster-signing-key-file={pki}/ca.key",
                f"--root-ca-file={pki}/ca.crt",
                f"--service-account-private-key-file={pki}/service-accounts.key",
                "--use-service-account-credentials=true",
                "--leader-elect=false",
                "--allocate-node-cidrs=false",
            ],
            after="kube-apiserver.service",
        ),
        "kube-scheduler": _unit(
            "Kubernetes scheduler",
            [
                "/usr/local/bin/kube-scheduler",
                "--kubeconfig=/etc/kubernetes/scheduler.kubeconfig",
                "--authentication-kubeconfig=/etc/kubernetes/scheduler.kubeconfig",
                "--authorization-kubeconfig=/etc/kubernetes/scheduler.kubeconfig",
                "--leader-elect=false",
            ],
            after="kube-apiserver.service",
        ),
        "kubelet": _unit(
            "Kubernetes node agent",
            [
                "/usr/local/bin/kubelet",
                "--config=/etc/kubernetes/kubelet.yaml",
                "--kubeconfig=/etc/kubernetes/node.kubeconfig",
                f"--hostname-override={NODE}",
                f"--node-ip={address}",
                "--oom-score-adj=0",
                # Nobody reads the figures of containers here, and collecting them every 10 s is two thirds of what the kubelet costs.
                "--housekeeping-interval=5m",
            ],
            after="containerd.service kube-apiserver.service",
            before_start=["/bin/sh -c 'until [ -S /run/containerd/containerd.sock ]; do sleep 0.2; done'"],
        ),
        "kube-proxy": _unit(
            "Kubernetes service proxy",
            [
                "/usr/local/bin/kube-proxy",
                "--kubeconfig=/etc/kubernetes/proxy.kubeconfig",
                f"--hostname-override={NODE}",
                f"--cluster-cidr={layout.POD_CIDR}",
                "--proxy-mode=iptables",
                "--conntrack-max-per-core=0",
                "--conntrack-tcp-timeout-established=0",
                "--conntrack-tcp-timeout-close-wait=0",
                "--oom-score-adj=0",
            ],
            after="kube-apiserver.service",
        ),
        "coredns": _unit(
            "CoreDNS, the cluster's DNS", ["/usr/local/bin/coredns", "-conf", "/etc/coredns/Corefile"], after="kube-apiserver.service"
        ),
        "onprem-cluster-setup": "\n".join(
            [
                "[Unit]",
                "Description=Cluster DNS service and pause image of the sandbox",
                "After=kube-apiserver.service containerd.service",
                "Wants=kube-apiserver.service containerd.service",
                "",
                "[Service]",
                "Type=oneshot",
                "RemainAfterExit=yes",
                "ExecStart=/etc/onprem-sandbox/cluster-setup.sh",
                "",
                "[Install]",
                "WantedBy=multi-user.target",
                "",
            ]
        ),
    }
    put(
        "/etc/onprem-sandbox/cluster-setup.sh",
        "#!/bin/sh\n"
        "until [ -S /run/containerd/containerd.sock ]; do sleep 0.2; done\n"
        f"ctr -n k8s.io images ls -q | grep -qx {PAUSE} || ctr -n k8s.io images import /etc/onprem-sandbox/pause.tar\n"
        "for try in $(seq 300); do kubectl --kubeconfig /etc/kubernetes/admin.kubeconfig apply -f /etc/kubernetes/cluster-dns.yaml && exit 0; sleep 0.5; done\n"
        "exit 1\n",
        0o755,
    )
    # bridged packets of pods must see the rules of kube-proxy, and so must forwarded ones
    put("/etc/sysctl.d/90-kubernetes.conf", "net.ipv4.ip_forward=1\n-net.bridge.bridge-nf-call-iptables=1\n")
    for name, text in units.items():
        put(f"/etc/systemd/system/{name}.service", text)
    put("/etc/systemd/system/containerd.service.d/sandbox.conf", "[Service]\nExecStartPre=\nOOMScoreAdjust=0\nLimitNOFILE=1048576\nLimitNPROC=infinity\nLimitCORE=0\n")
    return out


ENABLED = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "coredns", "onprem-cluster-setup")
