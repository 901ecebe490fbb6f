# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# Copyright: Contributors to onprem.circleci_server
"""AWS by boto3, which finds the credentials of the control host, signs, and renews them."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from typing import Any

from .errors import CloudError


class AwsSession:
    """Clients of one region. C(told) turns what AWS says into sentences."""

    def __init__(self, region: str) -> None:
        try:
            self.boto3: Any = importlib.import_module("boto3")
            self.config: Any = importlib.import_module("botocore.config")
            self.errors: Any = importlib.import_module("botocore.exceptions")
        except ImportError as error:
            raise CloudError(f"boto3 is missing on the control host ({error}); install what requirements/cloud.txt names") from error
        self.region = region

    def client(self, service: str, endpoint: str = "") -> Any:
        with self.told():
            settings = self.config.Config(connect_timeout=10, read_timeout=60, retries={"mode": "standard", "max_attempts": 4})
            return self.boto3.client(service, region_name=self.region or None, endpoint_url=endpoint or None, config=settings)

    def keys(self) -> tuple[str, str, str]:
        """Access key, secret key and session token that hold now."""
        with self.told():
            found = self.boto3.Session(region_name=self.region or None).get_credentials()
            if found is None:
                raise self.errors.NoCredentialsError()
            frozen = found.get_frozen_credentials()
            return str(frozen.access_key), str(frozen.secret_key), str(frozen.token or "")

    @contextlib.contextmanager
    def told(self) -> Iterator[None]:
        try:
            yield
        except self.errors.NoCredentialsError as error:
            raise CloudError("AWS: no credentials on the control host; give it an instance profile, or set AWS_ACCESS_KEY_ID and "
                             "AWS_SECRET_ACCESS_KEY in the environment of the run") from error  # fmt: skip
        except self.errors.ClientError as error:
            raise CloudError(f"AWS refused {error.operation_name}: {error.response['Error'].get('Message', '')} "
                             f"({error.response['Error'].get('Code', '')})") from error  # fmt: skip
        except self.errors.WaiterError as error:
            raise CloudError(f"AWS has not finished yet ({error}); the same command goes on") from error
        except self.errors.BotoCoreError as error:
            raise CloudError(f"AWS: {error}") from error
