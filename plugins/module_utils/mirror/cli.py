# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The engine by hand: ``circleci-mirror.pyz fetch | verify | load | view | extract | list | explain | lock | sign | seed | prune``."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Optional

from .access import Access
from .bundle import MANIFEST_NAME, Bundle
from .errors import EXIT_AGAIN, MirrorError, UsageError
from .limits import PARALLEL, parse_bytes
from .progress import Progress, human_bytes, human_line, replace_json

# A zipapp is compiled each time it runs, so each command imports only what it needs.
if TYPE_CHECKING:
    from .lock import Lock
    from .sign import Trust

_EXIT_CODES = """
exit codes:
  0   done, or nothing to do
  1   failed
  2   an option or an input file is wrong
  3   the bundle is not trusted (signature) or not whole
  4   a registry refused, or gave other content than asked for
  5   no space left
  6   the far side lacks what a delta builds on
  75  run me again: stopped by a signal, the network gave up, or the next medium is wanted; what was done is kept
"""


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _complain(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def _progress(arguments: argparse.Namespace) -> Progress:
    path = Path(arguments.progress) if getattr(arguments, "progress", None) else None
    if arguments.quiet:
        return Progress(path)
    if sys.stderr.isatty():
        return Progress(path, _line)
    told: dict[str, float] = {"at": -1e9}

    def plain(state: dict[str, Any]) -> None:
        # In a log file a line each ten seconds is enough.
        if state["elapsed"] - told["at"] >= 10 or state["elapsed"] < told["at"]:
            told["at"] = state["elapsed"]
            if state["elapsed"] >= 10:
                _complain(human_line(state))

    return Progress(path, plain)


def _line(state: dict[str, Any]) -> None:
    last = state["phase"] in ("done", "unchanged")
    sys.stderr.write("\r\x1b[K" + ("" if last else human_line(state)))
    sys.stderr.flush()


def _size(text: str) -> int:
    try:
        return parse_bytes(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _pairs(items: Optional[Sequence[str]], option: str) -> dict[str, str]:
    found = {}
    for item in items or ():
        old, equals, new = item.partition("=")
        if not equals or not old:
            raise UsageError(f"{option} {item!r}: written as OLD=NEW.")
        found[old] = new
    return found


def _access(arguments: argparse.Namespace) -> Access:
    credentials: dict[str, tuple[str, str]] = {}
    if arguments.username:
        # A password on the command line can be read by everybody on the machine: it comes from a file or the environment.
        if arguments.password_file:
            password = Path(arguments.password_file).read_text(encoding="utf-8").rstrip("\r\n")
        else:
            password = os.environ.get("MIRROR_PASSWORD", "")
        host = getattr(arguments, "registry", None)
        if not host:
            raise UsageError(
                "--username belongs to one registry: use it with load, verify --registry and "
                "prune; for fetch, log in with docker or podman, or give --docker-config."
            )
        credentials[host] = (arguments.username, password)
    access = Access(
        credentials=credentials,
        docker_config=Path(arguments.docker_config) if arguments.docker_config else None,
        ca_file=arguments.ca_file,
        client_cert=arguments.client_cert,
        client_key=arguments.client_key,
        plain_http=arguments.plain_http,
        plain_http_hosts=tuple(arguments.plain_http_host or ()),
        insecure_skip_verify=arguments.insecure_skip_verify,
        limit_rate=arguments.limit_rate,
        parallel=min(arguments.parallel, 64) if arguments.parallel else None,
        parallel_most=max(arguments.parallel or 0, 16),
    )
    arguments.access = access
    return access


def _stop_on_signals(access: Access) -> None:
    def stop(_number: int, _frame: Any) -> None:
        access.stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)


def _trust(arguments: argparse.Namespace) -> Trust:
    from .sign import Trust

    return Trust(public_key=arguments.public_key or "", allow_unsigned=arguments.allow_unsigned, allow_made_here=not arguments.public_key)


def _report(arguments: argparse.Namespace, result: Mapping[str, Any], text: Sequence[str]) -> None:
    if arguments.json:
        _say(json.dumps(result, sort_keys=True))
    else:
        for line in text:
            _say(line)


def _lock(arguments: argparse.Namespace) -> Lock:
    from .lock import Lock

    if arguments.lock:
        return Lock.load(Path(arguments.lock))
    lines = sys.stdin.read().splitlines() if arguments.refs == "-" else _read_lines(Path(arguments.refs))
    return Lock.from_refs(lines, [name for item in arguments.platform or () for name in item.split(",")])


def _read_lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}.") from error


def _fetch(arguments: argparse.Namespace) -> int:
    from .fetch import FetchOptions, fetch
    from .made_here import note_made_here

    access = _access(arguments)
    _stop_on_signals(access)
    base = None
    if arguments.base:
        from .delta import Base

        base = Base.load(Path(arguments.base))
    options = FetchOptions(_lock(arguments), Path(arguments.output), access, arguments.part_size, base, arguments.dry_run)
    result = fetch(options, _progress(arguments))
    if not arguments.dry_run:
        note_made_here((Path(arguments.output) / MANIFEST_NAME).read_bytes())
    lines = [f"{'~' if change.before and change.after else '+' if change.after else '-'} {change.name}" for change in result.changes]
    lines += [f"warning: {warning}" for warning in result.warnings]
    word = "would be " if arguments.dry_run else ""
    lines.append(
        f"bundle {result.bundle_id[:12]} {word}{'made' if result.changed else 'unchanged'}: {human_bytes(result.bytes_total)} in {len(result.parts)} part(s), "
        f"{human_bytes(result.bytes_moved)} moved, {human_bytes(result.bytes_reused)} reused, {result.requests} requests"
    )
    _report(arguments, result.as_dict(), lines)
    return 0


def _load(arguments: argparse.Namespace) -> int:
    from .load import LoadOptions, load

    access = _access(arguments)
    _stop_on_signals(access)
    options = LoadOptions(
        [Path(item) for item in arguments.directory],
        arguments.registry,
        access,
        _trust(arguments),
        state=Path(arguments.state) if arguments.state else _state_folder(),
        receipt=Path(arguments.receipt) if arguments.receipt else None,
        mapping=_pairs(arguments.map, "--map"),
        chunk_size=arguments.chunk_size,
        dry_run=arguments.dry_run,
    )
    result = load(options, _progress(arguments))
    lines = [f"{'~' if change.before else '+'} {change.name}" for change in result.changes] + [f"warning: {warning}" for warning in result.warnings]
    word = "would be loaded" if arguments.dry_run else "loaded"
    lines.append(
        f"bundle {result.bundle_id[:12]} {word if result.changed else 'is already'} in {result.registry}: "
        f"{human_bytes(result.bytes_moved)} moved, {result.blobs_uploaded} blobs uploaded, "
        f"{result.blobs_mounted} mounted, {result.blobs_present} present, {result.requests} requests"
    )
    _report(arguments, {**result.as_dict(), "receipt": None}, lines)
    return 0


def _state_folder() -> Path:
    base = os.environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
    return Path(base) / "onprem-circleci-mirror"


def _verify(arguments: argparse.Namespace) -> int:
    from .verify import verify_bundle, verify_registry

    with Bundle.open([Path(item) for item in arguments.directory]) as bundle:
        if arguments.registry:
            access = _access(arguments)
            _stop_on_signals(access)
            report = verify_registry(bundle, access.client(arguments.registry), arguments.deep, _pairs(arguments.map, "--map"), _progress(arguments))
            subject = arguments.registry
        else:
            trust = _trust(arguments) if arguments.public_key else None
            report = verify_bundle(bundle, arguments.deep, arguments.part, trust, _progress(arguments))
            subject = f"bundle {bundle.id[:12]}"
        lines = [
            *report.problems,
            f"{subject} {'is whole' if report.ok else 'is NOT whole'}: {report.checked_items} items, {human_bytes(report.checked_bytes)} read and hashed"
            + (f", {report.trusted}" if report.trusted else ""),
        ]
        _report(arguments, report.as_dict(), lines)
        return 0 if report.ok else 3


def _view(arguments: argparse.Namespace) -> int:
    from .view import make_view

    with Bundle.open([Path(item) for item in arguments.directory]) as bundle:
        result = make_view(bundle, Path(arguments.target), Path(arguments.link_from) if arguments.link_from else None, _progress(arguments))
    _report(
        arguments,
        result.as_dict(),
        [f"{result.path}: an OCI layout, {result.linked} blobs linked, {result.cloned} shared, {result.copied} copied ({human_bytes(result.bytes_copied)})"],
    )
    return 0


def _extract(arguments: argparse.Namespace) -> int:
    from .view import extract_files

    with Bundle.open([Path(item) for item in arguments.directory]) as bundle:
        files = extract_files(bundle, Path(arguments.to), arguments.name or None)
    _report(arguments, {"files": [item.as_dict() for item in files]}, [f"{item.path} ({item.name} {item.version}, sha256 {item.sha256})" for item in files])
    return 0


def _list(arguments: argparse.Namespace) -> int:
    with Bundle.open([Path(item) for item in arguments.directory]) as bundle:
        refs = [{"name": ref.name, "kind": ref.kind, "target": ref.target, "digest": ref.digest, "platforms": list(ref.platforms)} for ref in bundle.refs]
        present = bundle.present_parts()
        data = {
            "id": bundle.id,
            "created": bundle.manifest["created"],
            "parts": bundle.parts,
            "present": present,
            "bytes": sum(bundle.sizes.values()),
            "refs": refs,
        }
        lines = [f"{ref['kind']:9}{ref['name']}  {ref['digest']}" for ref in refs]
        lines.append(
            f"bundle {bundle.id[:12]}: {len(refs)} names, {len(bundle.sizes)} blobs, "
            f"{human_bytes(sum(bundle.sizes.values()))}, {bundle.parts} part(s), here: {present}"
        )
    _report(arguments, data, lines)
    return 0


def _explain(arguments: argparse.Namespace) -> int:
    from .lock import Lock

    found: list[dict[str, Any]]
    if arguments.lock:
        lock = Lock.load(Path(arguments.lock))
        found = [
            {"name": item.name, "target": item.target_name, "digest": item.digest, "why": [dict(reason) for reason in item.why]}
            for item in lock.refs
            if arguments.image in item.name or arguments.image in item.target_name
        ]
        found += [
            {"name": item.target_name, "target": item.target_name, "digest": None, "why": [dict(reason) for reason in item.why]}
            for item in lock.artifacts
            if arguments.image in item.target_name
        ]
    else:
        if not arguments.directory:
            raise UsageError("explain: give the folder of a bundle, or --lock FILE.")
        with Bundle.open([Path(item) for item in arguments.directory]) as bundle:
            found = bundle.explain(arguments.image)
    lines = []
    for item in found:
        lines.append(f"{item['name']}  ->  {item['target']}  {item['digest'] or 'not pinned'}")
        lines += [f"    {reason.get('file', '')} {reason.get('path', '')} ({reason.get('rule', '')})" for reason in item["why"]] or [
            "    no reason was recorded"
        ]
    _report(arguments, {"found": found}, lines or [f"{arguments.image}: not found"])
    return 0 if found else 1


def _pin(arguments: argparse.Namespace) -> int:
    from .lock import FORMAT as LOCK_FORMAT

    access = _access(arguments)
    lock = _lock(arguments).pinned(access)
    replace_json(Path(arguments.output), {"format": LOCK_FORMAT, "refs": lock.ref_data()})
    _report(arguments, {"refs": lock.ref_data()}, [f"{item.name}@{item.digest}" for item in lock.refs])
    return 0


def _sign(arguments: argparse.Namespace) -> int:
    from .sign import sign_bundle

    name = sign_bundle(Path(arguments.directory), arguments.kind, arguments.key or "")
    _report(arguments, {"signature": name}, [f"{arguments.directory}/{name} written, and a copy into each part"])
    return 0


def _seed(arguments: argparse.Namespace) -> int:
    from .seed import seed_storage
    from .sign import check_trust

    with Bundle.open([Path(item) for item in arguments.directory]) as bundle:
        check_trust(bundle.raw, bundle.signature_files(), _trust(arguments))
        result = seed_storage(bundle, Path(arguments.storage), _pairs(arguments.map, "--map"), arguments.dry_run, _progress(arguments))
    word = "would be written" if arguments.dry_run else "written"
    _report(arguments, result.as_dict(), [f"{arguments.storage}: {result.blobs} blobs ({human_bytes(result.bytes)}) and {result.links} links {word}"])
    return 0


def _prune(arguments: argparse.Namespace) -> int:
    from .prune import plan_prune, prune

    access = _access(arguments)
    client = access.client(arguments.registry)
    try:
        receipt = json.loads(Path(arguments.receipt).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{arguments.receipt}: cannot be read as a receipt: {error}") from error
    with Bundle.open([Path(item) for item in arguments.directory]) as bundle:
        plan = plan_prune(client, receipt, bundle, _pairs(arguments.map, "--map"))
        if arguments.yes:
            prune(client, plan, _progress(arguments))
    lines = [f"- {item['name']}" for item in plan.remove] + [f"kept: {text}" for text in plan.kept]
    if arguments.yes:
        lines.append(f"{plan.removed} manifests removed. Run the registry's garbage collection to get the space back.")
    else:
        lines.append(f"{len(plan.remove)} names would be removed. Nothing was changed; add --yes to do it.")
    _report(arguments, plan.as_dict(), lines)
    return 0


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    parser.add_argument("--progress", metavar="FILE", help="write progress as JSON into FILE")


def _transport(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("connection")
    group.add_argument("--plain-http", action="store_true", help="talk HTTP without TLS to all registries")
    group.add_argument("--plain-http-host", metavar="HOST[:PORT]", action="append", help="talk HTTP without TLS to this registry only; can be repeated")
    group.add_argument("--ca-file", metavar="FILE", help="certificate authorities to trust besides the system's (PEM)")
    group.add_argument("--client-cert", metavar="FILE", help="our own certificate (PEM)")
    group.add_argument("--client-key", metavar="FILE", help="its key, when it is in another file")
    group.add_argument("--insecure-skip-verify", action="store_true", help="do not check certificates")
    group.add_argument(
        "--username", metavar="NAME", help="user at the registry; the password comes from --password-file or the environment variable MIRROR_PASSWORD"
    )
    group.add_argument("--password-file", metavar="FILE", help="file with the password")
    group.add_argument(
        "--docker-config", metavar="FILE", help="docker config.json with credentials or credential helpers (default: where docker and podman keep it)"
    )
    group.add_argument("--limit-rate", metavar="RATE", type=_size, help="at most so many bytes per second in all, for example 20M")
    group.add_argument(
        "--parallel",
        metavar="N",
        type=int,
        help=f"requests at once per registry to start with; adapts itself (default: {PARALLEL}, over TLS no more than processors and one)",
    )


def _trusting(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--public-key", metavar="KEY", help="key that must have signed the bundle, or a file with it: minisign, SSH or OpenPGP")
    parser.add_argument("--allow-unsigned", action="store_true", help="take a bundle without a signature (one that was fetched here by you is always taken)")


def _sources(parser: argparse.ArgumentParser) -> None:
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--lock", metavar="FILE", help="lock file as written by discovery")
    source.add_argument("--refs", metavar="FILE", help="file with one image name a line (- for standard input)")
    parser.add_argument("--platform", metavar="OS/ARCH", action="append", help="with --refs: platforms to take (default: all)")


def build_parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    parser = argparse.ArgumentParser(
        prog="circleci-mirror",
        description="Carry images, charts and files across a gap.",
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, work: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text, epilog=_EXIT_CODES, formatter_class=argparse.RawDescriptionHelpFormatter)
        sub.set_defaults(work=work)
        _common(sub)
        return sub

    sub = command("fetch", _fetch, "Fetch what a lock names into a bundle; goes on where an earlier run stopped.")
    _sources(sub)
    sub.add_argument("--output", metavar="DIR", required=True, help="folder for the bundle")
    sub.add_argument("--part-size", metavar="BYTES", type=_size, help="largest size of a part, for example 4294967295 for FAT32, 4.7G for a DVD")
    sub.add_argument("--base", metavar="FILE", help="bundle.json of an earlier bundle, or a receipt: carry only what is not there")
    sub.add_argument("--dry-run", action="store_true", help="only say what would be fetched")
    _transport(sub)

    sub = command("verify", _verify, "Check that a bundle is whole, or that a registry has what it holds.")
    sub.add_argument("directory", nargs="+", metavar="DIR", help="folders with the parts")
    sub.add_argument("--deep", action="store_true", help="read and hash every byte")
    sub.add_argument("--part", type=int, metavar="N", help="only this part")
    sub.add_argument("--registry", metavar="HOST[:PORT][/PATH]", help="check this registry against the bundle")
    sub.add_argument("--map", metavar="OLD=NEW", action="append", help="as with load")
    _trusting(sub)
    _transport(sub)

    sub = command("load", _load, "Load a bundle into a registry, straight from its parts.")
    sub.add_argument("directory", nargs="+", metavar="DIR", help="folders with the parts; one medium after the other is fine")
    sub.add_argument("--registry", metavar="HOST[:PORT][/PATH]", required=True, help="where to")
    sub.add_argument("--receipt", metavar="FILE", help="write what is proven to be in the registry")
    sub.add_argument(
        "--map", metavar="OLD=NEW", action="append", help="put names that start with OLD (full name, or path in the registry) under NEW; can be repeated"
    )
    sub.add_argument("--state", metavar="DIR", help="folder for the journal that lets a stopped load go on")
    sub.add_argument("--chunk-size", metavar="BYTES", type=_size, default=16 << 20, help="blobs above this size go up in chunks of it (default 16Mi)")
    sub.add_argument("--dry-run", action="store_true", help="only say what would be loaded")
    _trusting(sub)
    _transport(sub)

    sub = command("view", _view, "Make a plain OCI layout out of a bundle, for other tools.")
    sub.add_argument("directory", nargs="+", metavar="DIR")
    sub.add_argument("target", metavar="LAYOUT", help="folder for the layout")
    sub.add_argument("--link-from", metavar="LAYOUT", help="take hard links from this earlier view where it has the blob")

    sub = command("extract", _extract, "Take files out of a bundle.")
    sub.add_argument("directory", nargs="+", metavar="DIR")
    sub.add_argument("--to", metavar="DIR", required=True, help="folder for the files")
    sub.add_argument("--name", action="append", metavar="NAME", help="only this file artifact, for example nomad or nomad:1.10.5; can be repeated")

    sub = command("list", _list, "Say what is in a bundle.")
    sub.add_argument("directory", nargs="+", metavar="DIR")

    sub = command("explain", _explain, "Say where a name comes from.")
    sub.add_argument("directory", nargs="*", metavar="DIR")
    sub.add_argument("image", metavar="IMAGE")
    sub.add_argument("--lock", metavar="FILE", help="look into a lock instead of a bundle")

    sub = command("lock", _pin, "Pin tags to the digests of now and write a lock.")
    _sources(sub)
    sub.add_argument("--output", metavar="FILE", required=True)
    _transport(sub)

    sub = command("sign", _sign, "Sign a bundle and put the signature into each part.")
    sub.add_argument("directory", metavar="DIR")
    sub.add_argument("--kind", choices=("minisign", "ssh", "gpg"), default="minisign")
    sub.add_argument("--key", metavar="FILE", help="secret key file (minisign, ssh) or key id (gpg)")

    sub = command("seed", _seed, "Write a bundle straight into the storage folder of a distribution registry.")
    sub.add_argument("directory", nargs="+", metavar="DIR")
    sub.add_argument("--storage", metavar="DIR", required=True, help="storage.filesystem.rootdirectory of the registry")
    sub.add_argument("--map", metavar="OLD=NEW", action="append")
    sub.add_argument("--dry-run", action="store_true")
    _trusting(sub)

    sub = command("prune", _prune, "Remove from a registry what an earlier load brought and the bundle does not name any more.")
    sub.add_argument("directory", nargs="+", metavar="DIR")
    sub.add_argument("--registry", metavar="HOST[:PORT][/PATH]", required=True)
    sub.add_argument("--receipt", metavar="FILE", required=True, help="receipt of the earlier load")
    sub.add_argument("--map", metavar="OLD=NEW", action="append")
    sub.add_argument("--yes", action="store_true", help="do it; without this only the plan is shown")
    _transport(sub)
    return parser


def run(argv: Optional[Sequence[str]] = None) -> int:
    """Run a command; returns the exit code."""
    arguments = build_parser().parse_args(argv)
    try:
        code: int = arguments.work(arguments)
        return code
    except MirrorError as error:
        _complain(("" if error.exit_code == EXIT_AGAIN else "error: ") + str(error))
        return error.exit_code
    except KeyboardInterrupt:
        return EXIT_AGAIN
    except BrokenPipeError:
        return 1
    except OSError as error:
        _complain(f"error: {error}")
        return 1
    finally:
        access: Optional[Access] = getattr(arguments, "access", None)
        if access is not None:
            access.close()
