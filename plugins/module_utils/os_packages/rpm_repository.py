# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""RPM packages with all they depend on, out of repositories that are named like in ``/etc/yum.repos.d``.

Neither dnf nor rpm is needed on the connected host. What is carried is described by elements of the publisher's own metadata, so
that nothing has to be downloaded before the lock pins it (createrepo_c reads the packages themselves).
"""

from __future__ import annotations

import bz2
import configparser
import gzip
import hashlib
import lzma
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Optional, Protocol
from urllib.parse import unquote, urlsplit
from xml.etree import ElementTree

from ..discovery.errors import DiscoveryError
from ..discovery.render import yaml_module
from ..mirror.errors import MirrorError
from ..mirror.sign import verify_gpg
from .rpm import COMMON, KEYS, PRIMARY, RPM, UNSIGNED, Closure, DependencyError, Pool, RpmPackage, by_name, packages_of
from .target import PackageError, Target, host_is

REPO = "{http://linux.duke.edu/metadata/repo}"
FILELISTS = "{http://linux.duke.edu/metadata/filelists}"
_FALSE = ("0", "no", "false", "off")
_OPENERS: dict[str, Any] = {".gz": gzip.open, ".xz": lzma.open, ".bz2": bz2.open, ".xml": open, ".yaml": open}


class Web(Protocol):
    """What gets files by URL."""

    def to_file(self, url: str, path: Path) -> None:
        """The whole file, onto the disk."""


@dataclass(frozen=True)
class Source:
    """One section of a ``.repo`` file."""

    name: str
    url: str
    keys: tuple[str, ...]
    signed_packages: bool
    signed_index: bool
    priority: int = 99
    excluded: tuple[str, ...] = ()

    @property
    def place(self) -> str:
        return f"repository {self.name} ({self.url})"


@dataclass
class RpmSet:
    """Packages with what makes a repository of them."""

    packages: list[RpmPackage]
    urls: dict[str, str]
    """Where each file is."""
    texts: dict[str, str]
    """Files that are written here: metadata and keys."""


def read_sources(text: str, target: Target) -> list[Source]:
    """Sections of a ``.repo`` file that are switched on, with the variables of dnf filled in."""
    parser = configparser.ConfigParser(interpolation=None, strict=True)
    try:
        parser.read_string(text)
    except configparser.Error as error:
        raise PackageError(f"{target}: `sources` is no .repo file of dnf: {' '.join(str(error).split())[:200]}") from error
    known = {"releasever": target.release, "basearch": target.architecture, "arch": target.architecture}
    found = []
    for name in parser.sections():
        section = {key: re.sub(r"\$\{?(\w+)\}?", lambda match: known.get(match[1], match[0]), value or "") for key, value in parser[name].items()}
        if section.get("enabled", "1").strip().lower() in _FALSE:
            continue
        url = next(iter(section.get("baseurl", "").replace(",", " ").split()), "")
        if not url or "$" in url:
            wrong = f"baseurl is {url!r}, with a variable that only dnf knows" if url else "it has no baseurl (lists of mirrors are not asked)"
            raise PackageError(f"{target}: `sources`, section {name}: {wrong}; write the address of one mirror as baseurl")
        if urlsplit(url).scheme not in ("http", "https", "file"):
            raise PackageError(f"{target}: `sources`, section {name}: baseurl {url!r} is no http, https or file address")
        keys = tuple(section.get("gpgkey", "").replace(",", " ").split())
        signed_packages = section.get("gpgcheck", "1").strip().lower() not in _FALSE
        signed_index = section.get("repo_gpgcheck", "0").strip().lower() not in _FALSE
        if (signed_packages or signed_index) and not keys:
            raise PackageError(
                f"{target}: `sources`, section {name}: gpgkey is missing; name the key of the publisher by its address or its file on the connected host, "
                "or say gpgcheck=0, which leaves signatures of its packages unchecked on the far side"
            )
        if url.startswith("http:") and not (signed_packages or signed_index):
            raise PackageError(f"{target}: `sources`, section {name}: over http: nothing says that its packages are the publisher's; use https: or gpgcheck=1")
        priority = section.get("priority", "99").strip()
        if not priority.isdigit():
            raise PackageError(f"{target}: `sources`, section {name}: priority is {priority!r}, a whole number is wanted")
        excluded = (section.get("excludepkgs", "") + " " + section.get("exclude", "")).replace(",", " ").split()
        found.append(Source(name, url.rstrip("/"), keys, signed_packages, signed_index, int(priority), tuple(excluded)))
    if not found:
        raise PackageError(f"{target}: `sources` has no section that is switched on")
    return found


def _own_sources(target: Target) -> str:
    host_is(target, ".repo file of dnf")
    return "\n".join(path.read_text(encoding="utf-8") for path in sorted(Path("/etc/yum.repos.d").glob("*.repo")))


def resolve_rpm(names: Sequence[str], target: Target, web: Web, *, sources: str = "", work: Optional[Path] = None) -> RpmSet:
    """The named packages and all that they need or could come to need, in the newest versions that the repositories have now."""
    chosen_sources = read_sources(sources or _own_sources(target), target)
    with tempfile.TemporaryDirectory(prefix="onprem-circleci-rpm-", dir=work) as folder:
        repositories = [_Repository(source, target, web, Path(folder) / str(number)) for number, source in enumerate(chosen_sources)]
        closure = _closure(names, repositories)
        if closure.problems:
            places = ", ".join(source.name for source in chosen_sources)
            raise PackageError(f"{target}: the packages cannot be put together from {places}: {'; '.join(sorted(closure.problems))[:800]}")
        chosen = by_name(closure.chosen)
        _check(chosen, target)
        elements: dict[RpmPackage, ElementTree.Element] = {}
        for repository in repositories:
            repository.elements(chosen, elements)
        keys = {f"{KEYS}{repository.source.name}.asc": repository.key_text() for repository in repositories if repository.source.signed_packages}
    bases = {repository.source.name: repository.source for repository in repositories}
    texts = {**_metadata(chosen, elements), **keys}
    unsigned = [package.filename for package in chosen if not bases[package.where].signed_packages]
    if unsigned:
        texts[UNSIGNED] = "".join(f"{name}\n" for name in unsigned)
    return RpmSet(chosen, {package.filename: f"{bases[package.where].url}/{package.href}" for package in chosen}, texts)


def _closure(names: Sequence[str], repositories: Sequence[_Repository]) -> Closure:
    """What is carried; each step costs more than the one before and is only taken when that one was not enough."""
    packages = [package for repository in repositories for package in repository.packages()]
    pool = Pool(packages)
    first = closure = Closure(pool, carry=True).names(names)
    wanted = pool.paths_without_package() if closure.problems or closure.perhaps else set()
    if wanted:
        # Of most files primary.xml says nothing.
        pool = Pool(package for repository in repositories for package in repository.with_files(packages, wanted))
        first = closure = Closure(pool, carry=True).names(names)
    if closure.problems:
        closure = Closure(pool.living(), carry=True).names(names)
    # Without the dead it is said of the name itself that nothing provides it, which helps nobody.
    return first if closure.problems else closure


def local_path(url: str) -> Optional[str]:
    """Where the file lies when the repository is a folder of the connected host."""
    parts = urlsplit(url)
    return unquote(parts.path) if parts.scheme == "file" else None


def _check(chosen: Sequence[RpmPackage], target: Target) -> None:
    seen: dict[str, RpmPackage] = {}
    for package in chosen:
        if not package.sha256:
            raise PackageError(f"{target}: the repository {package.where} has no sha256 for {package.filename}; use a source whose index has one")
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+~^-]*\.rpm", package.filename) or ".." in package.href.split("/"):
            raise PackageError(f"{target}: the repository {package.where} names a package {package.href!r}, which is refused")
        other = seen.setdefault(package.filename, package)
        if other.sha256 != package.sha256:
            raise PackageError(f"{target}: {package.filename} of {package.where} and of {other.where} differ; leave one out with excludepkgs")


class _Repository:
    def __init__(self, source: Source, target: Target, web: Web, folder: Path) -> None:
        self.source, self.target, self.web, self.folder = source, target, web, folder
        folder.mkdir(parents=True)
        self._paths: dict[str, Path] = {}
        self._data = self._read_index()

    def key_text(self) -> str:
        """The keys of the publisher, one after the other."""
        texts = []
        for number, key in enumerate(self.source.keys):
            path = self.folder / f"key-{number}"
            self._get(key if "://" in key else Path(key).absolute().as_uri(), path)
            text = path.read_text(encoding="utf-8", errors="replace")
            if "-----BEGIN PGP PUBLIC KEY BLOCK-----" not in text:
                raise PackageError(f"{self.target}: {self.source.place}: gpgkey {key} is no public key as text (BEGIN PGP PUBLIC KEY BLOCK)")
            texts.append(text.strip() + "\n")
        return "".join(texts)

    def packages(self) -> list[RpmPackage]:
        """Those for the architecture that are not hidden."""
        hidden, modular = self._modules()
        excluded = [re.compile(re.escape(word).replace(r"\*", ".*").replace(r"\?", ".")) for word in self.source.excluded]
        found = []
        for package, _element in self._primary():
            if package.architecture not in (self.target.architecture, "noarch") or any(word.fullmatch(package.name) for word in excluded):
                continue
            if package.nevra in hidden or (package.name in modular and package.nevra not in modular[package.name]):
                continue
            found.append(package)
        return found

    def with_files(self, packages: Iterable[RpmPackage], wanted: set[str]) -> list[RpmPackage]:
        """The packages of this repository, with those of the wanted files that only filelists.xml names."""
        own = {package.sha256: package for package in packages if package.where == self.source.name}
        if "filelists" in self._data:
            for _event, element in ElementTree.iterparse(self._open("filelists")):  # noqa: S314 - the parser of every supported Python refuses entity bombs
                if element.tag == f"{FILELISTS}package":
                    more = {item.text or "" for item in element.iter(f"{FILELISTS}file")} & wanted
                    package = own.get(element.get("pkgid", ""))
                    if more and package is not None:
                        own[package.sha256] = replace(package, files=(*package.files, *sorted(more - set(package.files))))
                    element.clear()
        return list(own.values())

    def elements(self, chosen: Iterable[RpmPackage], found: dict[RpmPackage, ElementTree.Element]) -> None:
        """The elements of the chosen packages of this repository."""
        own = {(package.sha256, package.href): package for package in chosen if package.where == self.source.name}
        for package, element in self._primary():
            wanted = own.get((package.sha256, package.href))
            if wanted is not None:
                # The iterator empties its root, not what hangs on it.
                found[wanted] = element

    def _primary(self) -> Iterator[tuple[RpmPackage, ElementTree.Element]]:
        try:
            for package, element in packages_of(self._open("primary")):
                yield replace(package, where=self.source.name, priority=self.source.priority), element
        except (DependencyError, ElementTree.ParseError, OSError, EOFError, lzma.LZMAError, ValueError) as error:
            raise PackageError(f"{self.target}: {self.source.place}: primary.xml cannot be read: {error}") from error

    def _get(self, url: str, path: Path) -> None:
        try:
            self.web.to_file(url, path)
        except Exception as error:
            # Who gets the file has errors of its own.
            raise PackageError(f"{self.target}: {self.source.place}: {error}") from error

    def _read_index(self) -> dict[str, tuple[str, tuple[str, ...]]]:
        path = self.folder / "repomd.xml"
        self._get(f"{self.source.url}/repodata/repomd.xml", path)
        if self.source.signed_index:
            signature = self.folder / "repomd.xml.asc"
            self._get(f"{self.source.url}/repodata/repomd.xml.asc", signature)
            try:
                verify_gpg(self.key_text().encode(), path.read_bytes(), signature.read_bytes())
            except MirrorError as error:
                raise PackageError(f"{self.target}: {self.source.place}: repomd.xml is not signed by its gpgkey: {error}") from error
        found = {}
        try:
            root = ElementTree.parse(path).getroot()  # noqa: S314 - the parser of every supported Python refuses entity bombs
            for data in root.findall(f"{REPO}data"):
                place = data.find(f"{REPO}location")
                sums = tuple(
                    (item.text or "").strip().lower()
                    for item in (data.find(f"{REPO}checksum"), data.find(f"{REPO}open-checksum"))
                    if item is not None and item.get("type") == "sha256"
                )
                if place is not None:
                    found[data.get("type", "")] = (place.get("href", ""), sums)
        except ElementTree.ParseError as error:
            raise PackageError(f"{self.target}: {self.source.place}: repomd.xml cannot be read: {error}; is this the address of a repository?") from error
        if "primary" not in found:
            raise PackageError(f"{self.target}: {self.source.place}: repomd.xml names no primary.xml")
        return found

    def _open(self, kind: str) -> Any:
        """A file of the index, checked against repomd.xml, unpacked while it is read."""
        if kind not in self._paths:
            href, sums = self._data[kind]
            path = self.folder / f"{kind}{Path(href).suffix}"
            self._get(f"{self.source.url}/{href}", path)
            if not sums or hashlib.sha256(path.read_bytes()).hexdigest() not in sums:
                said = f"repomd.xml says sha256 {sums[0]}" if sums else "repomd.xml has no sha256 for it"
                raise PackageError(f"{self.target}: {self.source.place}: {href} is not what the index names ({said}); try again, or take another mirror")
            self._paths[kind] = _unpack_zstd(path, f"{self.target}: {self.source.place}") if path.suffix == ".zst" else path
            if self._paths[kind].suffix not in _OPENERS:
                raise PackageError(f"{self.target}: {self.source.place}: {href} is packed in a way that is not known here")
        return _OPENERS[self._paths[kind].suffix](self._paths[kind], "rb")

    def _modules(self) -> tuple[set[str], dict[str, set[str]]]:
        """Packages of streams that are not the default one; names of packages that only a default stream may bring."""
        if "modules" not in self._data:
            return set(), {}
        try:
            yaml = yaml_module()
            with self._open("modules") as stream:
                documents = [item for item in yaml.load_all(stream, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)) if isinstance(item, dict)]
        except DiscoveryError as error:
            raise PackageError(f"{self.target}: {self.source.place}: {error}") from error
        defaults = {item["data"]["module"]: str(item["data"].get("stream", "")) for item in documents if item.get("document") == "modulemd-defaults"}
        hidden: set[str] = set()
        modular: dict[str, set[str]] = {}
        for item in documents:
            if item.get("document") != "modulemd":
                continue
            artifacts = [str(name) for name in (item["data"].get("artifacts") or {}).get("rpms") or ()]
            if str(item["data"].get("stream")) == defaults.get(item["data"].get("name")):
                for name in artifacts:
                    modular.setdefault(name.rsplit("-", 2)[0], set()).add(name)
            else:
                hidden.update(artifacts)
        return hidden - {name for names in modular.values() for name in names}, modular


def _unpack_zstd(path: Path, where: str) -> Path:
    program = shutil.which("zstd")
    if program is None:
        raise PackageError(f"{where}: its index is packed with zstd, and that program is not on the connected host; install it (package zstd)")
    unpacked = path.with_suffix(".xml")
    if subprocess.run([program, "-dqf", str(path), "-o", str(unpacked)], check=False, capture_output=True).returncode:
        raise PackageError(f"{where}: zstd cannot unpack {path.name}")
    return unpacked


def _metadata(chosen: Sequence[RpmPackage], elements: Mapping[RpmPackage, ElementTree.Element]) -> dict[str, str]:
    """repomd.xml and primary.xml; the same packages give the same text, whenever and wherever it is written."""
    root = ElementTree.Element(f"{COMMON}metadata", {"packages": str(len(chosen))})
    root.text = "\n"
    for package in chosen:
        element = elements[package]
        place, form = element.find(f"{COMMON}location"), element.find(f"{COMMON}format")
        if place is not None:
            place.attrib.clear()
            place.set("href", package.filename)
        if form is not None:
            told = {item.text for item in form.findall(f"{COMMON}file")}
            for path in package.files:
                if path not in told:
                    ElementTree.SubElement(form, f"{COMMON}file").text = path
        element.tail = "\n"
        root.append(element)
    ElementTree.register_namespace("", COMMON.strip("{}"))
    ElementTree.register_namespace("rpm", RPM.strip("{}"))
    head = '<?xml version="1.0" encoding="UTF-8"?>\n'
    primary = f"{head}{ElementTree.tostring(root, encoding='unicode')}\n"
    # Not the hour at which this runs: the bytes must not depend on it.
    newest = max((package.built for package in chosen), default=0)
    data = primary.encode()
    digest = hashlib.sha256(data).hexdigest()
    repomd = (
        f'{head}<repomd xmlns="{REPO.strip("{}")}" xmlns:rpm="{RPM.strip("{}")}">\n<revision>{newest}</revision>\n<data type="primary">\n'
        f'<checksum type="sha256">{digest}</checksum>\n<open-checksum type="sha256">{digest}</open-checksum>\n'
        f'<location href="{PRIMARY}"/>\n<timestamp>{newest}</timestamp>\n<size>{len(data)}</size>\n<open-size>{len(data)}</open-size>\n</data>\n</repomd>\n'
    )
    return {PRIMARY: primary, "repodata/repomd.xml": repomd}
