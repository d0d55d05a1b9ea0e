"""A base for the image where no registry of images can be reached: Debian's minimum and its Python, by debootstrap.

It is kept in a folder that outlives the run, because it takes minutes; MOORAGE_IMAGE_BASE=IMAGE uses another, which
docker then pulls. It trusts the certificates that this machine trusts, so that pip works behind a proxy.
"""

import os
import platform
import shutil
import subprocess
from pathlib import Path

CACHE = Path("/var/tmp/moorage-image")
CERTIFICATES = "etc/ssl/certs/ca-certificates.crt"
PACKAGES = "python3,python3-venv,ca-certificates"


def given() -> str:
    return os.environ.get("MOORAGE_IMAGE_BASE", "")


def archive() -> Path:
    """The base as a tar for `docker import`, made if it is not there yet."""
    suite = platform.freedesktop_os_release()["VERSION_CODENAME"]
    made = CACHE / f"{suite}-{platform.machine()}.tar"
    if not made.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        folder, unfinished = CACHE / "unfinished", CACHE / "unfinished.tar"
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run(["debootstrap", "--variant=minbase", f"--include={PACKAGES}", suite, folder], check=True)
        for index in ("var/cache/apt", "var/lib/apt/lists"):
            shutil.rmtree(folder / index)
        if (trusted := Path("/", CERTIFICATES)).exists():
            shutil.copyfile(trusted, folder / CERTIFICATES)
        subprocess.run(
            ["tar", "--create", "--file", unfinished, "--exclude=./dev/*", "--exclude=./proc/*", "."],
            cwd=folder,
            check=True,
        )
        unfinished.rename(made)
        shutil.rmtree(folder)
    return made
