# SPDX-License-Identifier: GPL-3.0-or-later
"""Run on the bastion: one upload whose parts all stop half on their way, until told to go on; parts that broke are sent again.

Keys come by standard input, which nobody else reads. It prints C(half) when it waits, goes on after a line, and ends with what it saw.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import sys
import threading
import time

from ansible_collections.onprem.circleci_server.plugins.module_utils.s3.client import S3Client, S3Error
from ansible_collections.onprem.circleci_server.plugins.module_utils.s3.signature import Credentials

PARTS, SIZE = 16, 5 << 20
BUCKET, KEY = "circleci-data", "artifacts/while-a-pod-goes"


class Halting(io.BytesIO):
    """A body that stops in the middle."""

    def __init__(self, data: bytes, half: threading.Semaphore, go: threading.Event) -> None:
        super().__init__(data)
        self.half, self.go, self.told = half, go, False

    def read(self, size: int | None = -1, /) -> bytes:
        if self.tell() >= SIZE // 2 and not self.told:
            self.told = True
            self.half.release()
            self.go.wait()
        return super().read(size)


def main() -> int:
    endpoint = sys.argv[1]
    keys = json.loads(sys.stdin.readline())
    credentials = Credentials(keys["access_key"], keys["secret_key"], "us-east-1")
    client = S3Client(endpoint, credentials)
    upload = client.start_upload(BUCKET, KEY)
    bodies = [os.urandom(SIZE) for _ in range(PARTS)]
    etags, broken, lock = [""] * PARTS, [], threading.Lock()
    half, go = threading.Semaphore(0), threading.Event()

    def send(number: int) -> None:
        body: io.BytesIO = Halting(bodies[number], half, go)
        digest = hashlib.sha256(bodies[number]).hexdigest()
        query = {"partNumber": str(number + 1), "uploadId": upload}
        for attempt in range(60):
            # A connection of its own each time, as through any name with several behind it.
            one = S3Client(endpoint, credentials, timeout=20.0)
            try:
                answer = one.send("PUT", f"/{BUCKET}/{KEY}", query, body=body, length=SIZE, payload=digest)
                etags[number] = one.expect(f"part {number + 1}", answer, 200).header("etag")
                return
            except S3Error:
                if attempt == 0:
                    with lock:
                        broken.append(number)
                body = io.BytesIO(bodies[number])
                time.sleep(0.5)
            finally:
                one.close()

    threads = [threading.Thread(target=send, args=(number,)) for number in range(PARTS)]
    for thread in threads:
        thread.start()
    for _ in range(PARTS):
        half.acquire()
    sys.stdout.write("half\n")
    sys.stdout.flush()
    sys.stdin.readline()
    go.set()
    for thread in threads:
        thread.join()
    client.close()
    client.finish_upload(BUCKET, KEY, upload, etags)
    same = client.get(BUCKET, KEY).body == b"".join(bodies)
    sys.stdout.write(json.dumps({"broken": len(broken), "parts": PARTS, "same": same}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
