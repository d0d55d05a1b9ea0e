"""A base for the image where no registry of images can be reached: Debian's minimum and its Python, by mmdebstrap.

It has apt, as the official images do, and so libstdc++. It takes half a minute; MOORAGE_IMAGE_BASE=IMAGE uses another,
which docker then pulls. It trusts the certificates that this machine trusts, so that pip works behind a proxy.
"""

import os
import platform
import subprocess
from pathlib import Path

CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
PACKAGES = "python3,python3-venv,ca-certificates"


def given() -> str:
    return os.environ.get("MOORAGE_IMAGE_BASE", "")


def make(archive: Path) -> None:
    """Write the base as a tar for `docker import`: this machine's release of Debian or Ubuntu."""
    options = ["--quiet", "--variant=apt", f"--include={PACKAGES}", "--skip=output/dev"]
    if Path(CERTIFICATES).exists():
        options.append(f"--customize-hook=upload {CERTIFICATES} {CERTIFICATES}")
    suite = platform.freedesktop_os_release()["VERSION_CODENAME"]
    subprocess.run(["mmdebstrap", *options, suite, archive], check=True)
