# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The vendor's decisions as data: releases, services, ports, images, values keys, platforms.

``Catalog.load()`` is the only way in. People edit the YAML files under ``data/``; the JSON under ``generated/`` is
made from them by ``generate.py`` and is the only form that is read when a playbook runs.
"""

from __future__ import annotations

from .errors import (
    CatalogDataError,
    CatalogError,
    CatalogOverlayError,
    KnownBadReleaseError,
    NoUpgradePathError,
    UnknownNameError,
    UnknownPlatformError,
    UnknownReleaseError,
    UnknownServiceError,
    UnknownValuesKeyError,
)
from .loader import Catalog
from .model import (
    Certainty,
    ExternalDatabase,
    Fact,
    FailureMode,
    FileSpec,
    HostGroup,
    Image,
    ImageValuesKeys,
    InternalPort,
    NomadLayout,
    ObjectStorageOption,
    Platform,
    PortRule,
    Release,
    Requirement,
    RetiredValuesKey,
    SecretKey,
    SecretSpec,
    Service,
    Sizing,
    UpgradeStep,
    ValuesKey,
    Verdict,
    Workload,
    plain,
)
from .versions import KubernetesRange, MinorRange, key_path, parse_release

__all__ = [
    "Catalog",
    "CatalogDataError",
    "CatalogError",
    "CatalogOverlayError",
    "Certainty",
    "ExternalDatabase",
    "Fact",
    "FailureMode",
    "FileSpec",
    "HostGroup",
    "Image",
    "ImageValuesKeys",
    "InternalPort",
    "KnownBadReleaseError",
    "KubernetesRange",
    "MinorRange",
    "NoUpgradePathError",
    "NomadLayout",
    "ObjectStorageOption",
    "Platform",
    "PortRule",
    "Release",
    "Requirement",
    "RetiredValuesKey",
    "SecretKey",
    "SecretSpec",
    "Service",
    "Sizing",
    "UnknownNameError",
    "UnknownPlatformError",
    "UnknownReleaseError",
    "UnknownServiceError",
    "UnknownValuesKeyError",
    "UpgradeStep",
    "ValuesKey",
    "Verdict",
    "Workload",
    "key_path",
    "parse_release",
    "plain",
]
