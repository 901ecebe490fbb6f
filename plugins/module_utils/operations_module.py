# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the modules share that work on an installed release: which one it is, and errors as sentences."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Optional

from .helm import releases
from .helm.cli import HelmError, Source
from .helm.kube import KubeApi, KubeError, KubernetesClient, get_or_none, owner_of
from .helm.lifecycle import ReleaseError
from .helm.objects import HAS_YAML
from .helm.releases import StoredRelease
from .operations.kubectl import OperationError
from .records import RecordError

CHART = "circleci-server"
RELEASE_SPEC: dict[str, Any] = {
    "kubeconfig": {"type": "path", "required": True},
    "context": {"type": "str", "default": ""},
    "name": {"type": "str", "required": True},
    "namespace": {"type": "str", "required": True},
    "domain": {"type": "str", "default": ""},
}
WAIT_SPEC: dict[str, Any] = {
    "wait_timeout": {"type": "int", "default": 2700},
    "expected_to_fail": {"type": "list", "elements": "str", "default": []},
    "progress_file": {"type": "path"},
}

REGISTRY_SPEC: dict[str, Any] = {
    "registry_username": {"type": "str", "default": ""},
    "registry_password": {"type": "str", "default": "", "no_log": True},
    "registry_ca": {"type": "str", "default": ""},
    "registry_plain_http": {"type": "bool", "default": False},
}


def chart_source(chart: str, version: str, params: dict[str, Any]) -> Source:
    """Where a chart is, with the options of REGISTRY_SPEC."""
    return Source(chart, version, params["registry_username"], params["registry_password"], params["registry_ca"], params["registry_plain_http"])


def find_release(api: KubeApi, params: dict[str, Any]) -> Optional[StoredRelease]:
    """The last revision of the release of the site; None when there is none. Someone else's is refused."""
    name, namespace = params["name"], params["namespace"]
    space = get_or_none(api, f"/api/v1/namespaces/{namespace}") if _may_read_namespaces(api, namespace) else {}
    if space is None:
        return None
    owner = owner_of(space)
    if owner and params["domain"] and owner != params["domain"]:
        raise ReleaseError(
            "foreign_namespace", f"namespace {namespace} belongs to the site {owner}, not to {params['domain']}: choose another circleci_namespace."
        )
    present = releases.current(releases.history(api, namespace, name))
    if present is None:
        others = releases.others(api, namespace, name, CHART)
        if others:
            raise ReleaseError(
                "second_release",
                f"namespace {namespace} holds the release {', '.join(others)} of the same chart, and none called {name}: set circleci_release_name to it.",
            )
        return None
    if present.chart_name != CHART:
        raise ReleaseError(
            "foreign_release",
            f"the Helm release {name} in namespace {namespace} is one of the chart {present.chart_name}, not of {CHART}: "
            "choose another circleci_release_name or circleci_namespace.",
        )
    domain = (present.values.get("global") or {}).get("domainName")
    if domain and params["domain"] and domain != params["domain"]:
        raise ReleaseError(
            "foreign_site",
            f"the Helm release {name} in namespace {namespace} serves {domain}, not {params['domain']}: choose another circleci_namespace.",
        )
    return present


def _may_read_namespaces(api: KubeApi, namespace: str) -> bool:
    """Whoever administers only a namespace may not read the object that it is."""
    try:
        get_or_none(api, f"/api/v1/namespaces/{namespace}")
    except KubeError as error:
        if error.status == 403:
            return False
        raise
    return True


def need_release(api: KubeApi, params: dict[str, Any]) -> StoredRelease:
    found = find_release(api, params)
    if found is None:
        raise ReleaseError(
            "no_release", f"there is no Helm release {params['name']} in namespace {params['namespace']}: run the verb install first."
        )
    return found


def client(module: Any) -> KubernetesClient:
    if not HAS_YAML:
        module.fail_json(msg="The Python library PyYAML is missing on this host: install it.", code="library")
    return KubernetesClient(module.params["kubeconfig"], module.params["context"])


@contextlib.contextmanager
def told(module: Any) -> Iterator[None]:
    """Errors of the engines become the message and the code of the module."""
    name = module.params["name"]
    try:
        yield
    except KubeError as error:
        module.fail_json(msg=f"Release {name}: {error.sentence}", code="kubernetes")
    except HelmError as error:
        module.fail_json(msg=f"Release {name}: {error}", code=error.kind)
    except (ReleaseError, OperationError) as error:
        module.fail_json(msg=f"Release {name}: {error}", code=error.code)
    except RecordError as error:
        module.fail_json(msg=f"Release {name}: {error}", code="record")
    except OSError as error:
        module.fail_json(msg=f"Release {name}: {error.filename or ''}: {error.strerror or error}", code="file")
