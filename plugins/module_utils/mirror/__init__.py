# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The mirror engine: fetch images, charts and files into a bundle, carry it, load it into a registry.

Python >= 3.9, standard library only, no Ansible. Nothing here prints; long calls report through :class:`progress.Progress`.
Import the module you need; this package itself imports nothing.

Talking to a registry (``registry.py``)::

    from .registry import RegistryClient
    client = RegistryClient("registry.site.example:5000", username="u", password="p", ca_data=PEM)   # or ca_file=, plain_http=True
    client.head_manifest("library/nginx", "1.29.2")          # -> "sha256:…" or None when it is not there
    client.get_manifest("library/nginx", "1.29.2")           # -> Manifest(digest, media_type, body), checked against its digest
    client.list_tags("library/nginx")                        # -> ["1.29.2", …]; [] when the repository is not there
    client.list_repositories()                               # -> ["library/nginx", …]
    client.get_blob("library/nginx", "sha256:…", limit=1 << 20)      # -> bytes, checked
    client.blob_to_file("library/nginx", "sha256:…", path)           # -> size; streams into path, checked, atomic replace
    client.delete_manifest("library/nginx", "sha256:…")
    client.push_blob(repo, data); client.put_manifest(repo, tag, Manifest)
    client.close()

One file artifact (``artifact.py``), for module ``oci_file``::

    from .artifact import describe_file, pull_file
    describe_file(client, "onprem/files/nomad", "1.10.5")     # -> RemoteFile(repo, tag, layer_digest, size, filename, mode)
    pull_file(client, remote, "/usr/local/bin/nomad")         # streams, checks, replaces atomically, sets the mode
    list_files(client, "onprem/packages/debian-12-amd64", tag) # -> [RemoteFile, …] of an artifact with many layers

The lock (``lock.py``)::

    lock = Lock.load(path) / Lock.from_data(dict) / Lock.from_refs(["docker.io/library/nginx:1.29.2"], platforms=["linux/amd64"])
    lock.pinned(client_factory) -> Lock           # each tag resolved to the digest of now
    {"format": "onprem.circleci_server/lock/1",
     "refs":  [{"ref", "digest": "sha256:…"|null, "platforms": ["linux/amd64"] ([] = all), "target": "repo:tag"|absent, "why": [...]}],
     "files": [{"name", "version", "url" or "path", "sha256"|null, "size"|null, "filename", "mode"}],          -> onprem/files/<name>:<version>
     "charts": [{"name", "version", "url" or "path", "sha256"|null, "metadata": {Chart.yaml as JSON}}],        -> charts/<name>:<version>
     "artifacts": [{"repo", "tag", "artifact_type", "files": [{"url" or "path", "sha256", "size", "filename", "mode"}]}]}   -> <repo>:<tag>, one layer per file
    ``path`` may be relative to the lock file. An HTTP answer with Content-Encoding: gzip is unpacked; sha256 and size are those of the unpacked file.

Fetch (``fetch.py``)::

    result = fetch(FetchOptions(lock=lock, output=Path("/srv/bundle"), part_size=None, base=None, access=Access(...), dry_run=False), progress=None)
    result.changed, result.changes [Change(name, before, after, bytes)], result.bundle_id, result.bytes_moved, result.bytes_total,
    result.requests, result.parts [names], result.warnings, result.as_dict()
    In the folder afterwards: bundle.json, bundle-<id>-001.tar …, circleci-mirror.pyz. sign.sign_bundle(dir, key) adds bundle.json.minisig|.sig|.asc.

Credentials and transport for many hosts (``access.py``)::

    Access(credentials={"host[:port]": (user, password)}, docker_config=Path|None, use_docker_config=True, ca_file=, ca_data=, client_cert=, client_key=,
           plain_http=False, plain_http_hosts=(), insecure_skip_verify=False, limit_rate=bytes_per_second|None, proxies_from_environment=True)
    access.client("quay.io") -> RegistryClient

Load (``load.py``)::

    result = load(LoadOptions(directories=[Path("/media/usb")], registry="registry.site.example:5000", access=Access(...), trust=Trust(public_key="RW…"),
                  state=Path("/var/lib/onprem-circleci/mirror"), receipt=Path("…/receipt.json"), mapping={}, dry_run=False), progress=None)
    result.changed, result.changes, result.bytes_moved, result.blobs_uploaded, result.blobs_mounted, result.requests, result.warnings, result.receipt
    ``dry_run=True`` asks the registry (one HEAD per reference) and writes nothing: use it for check mode.

Bundle (``bundle.py``, ``verify.py``, ``view.py``)::

    bundle = Bundle.open([dirs]); bundle.manifest; bundle.refs; bundle.read_blob(digest); bundle.explain("circleci/picard")
    verify_bundle(bundle, deep=True, part=None, trust=Trust(...)) -> Report(ok, problems, checked_bytes)
    verify_registry(bundle, client, deep=False) -> Report
    make_view(bundle, target_dir) -> ViewResult       # an OCI layout for other tools
    extract_files(bundle, target_dir, names=None) -> [ExtractedFile(name, version, path, sha256, mode)]

Others: ``delta.py`` (Base.load: an earlier bundle.json or a receipt), ``sign.py`` (Trust, check_trust, sign_bundle), ``prune.py`` (plan_prune,
prune), ``seed.py`` (seed_storage), ``pyz.py`` (write_pyz), ``progress.py`` (Progress: JSON file with phase, bytes_done, bytes_total, rate, eta;
read_progress), ``cli.py`` (the zipapp).

Errors are :class:`errors.MirrorError` with a sentence for people and ``exit_code``: 1 failed, 2 wrong use, 3 not trusted or not whole, 4 the registry refused,
5 no space, 6 the base of a delta is missing, 75 run me again (stopped, next medium, or the network gave up; what was done is kept).
"""
