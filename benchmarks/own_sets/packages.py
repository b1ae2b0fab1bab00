"""Packages that image sets are made from: fetched with their registry's own client, unpacked, never installed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
import shutil
import subprocess
import tarfile


@dataclass(frozen=True)
class Package:
    """A published package.

    Attributes:
        registry: debian or npm.
        version: None takes what the distribution offers; what it was is in the table of `build`.
    """

    registry: str
    name: str
    version: str | None = None


def fetch(package: Package, work: Path) -> tuple[Path, str]:
    """The folder of the package's unpacked files, and its version. What is there already is not fetched again.

    Raises:
        subprocess.CalledProcessError: the registry does not have it.
        FileNotFoundError: the registry's client is not installed.
    """
    place = work / package.name.replace("/", "-")
    unpacked, archives = place / "files", place / "archive"
    if not unpacked.is_dir():
        archives.mkdir(parents=True, exist_ok=True)
        if package.registry == "debian":
            archive = _debian(package, archives)
            subprocess.run(["dpkg-deb", "--extract", archive, place / "partial"], check=True)
        else:
            archive = _npm(package, archives)
            with tarfile.open(archive) as content:
                content.extractall(place / "partial", filter="data")
        shutil.move(place / "partial", unpacked)
    return unpacked, package.version or _debian_version(archives)


def _debian(package: Package, archives: Path) -> Path:
    name = package.name if package.version is None else f"{package.name}={package.version}"
    subprocess.run(["apt-get", "download", "--quiet=2", name], cwd=archives, check=True)
    return next(archives.glob("*.deb"))


def _debian_version(archives: Path) -> str:
    field = ["dpkg-deb", "--field", str(next(archives.glob("*.deb"))), "Version"]
    return subprocess.run(field, check=True, capture_output=True, text=True).stdout.strip()


def _npm(package: Package, archives: Path) -> Path:
    subprocess.run(
        ["npm", "pack", "--silent", f"{package.name}@{package.version}"],
        cwd=archives,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return next(archives.glob("*.tgz"))
