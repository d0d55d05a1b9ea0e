"""Whom upstreams are trusted by: what is the same is made once, and what is not checked stays apart."""

import ssl
from dataclasses import replace
from pathlib import Path

import pytest

from registry.config.errors import ConfigError
from registry.config.upstreams import UpstreamTLSConfig
from registry.proxy.realms import Origin
from registry.proxy.trust import Trusts

ONE, OTHER = Origin.of("https://one.test/"), Origin.of("https://other.test/")
CHECKED = UpstreamTLSConfig()


def test_one_context_for_the_same_settings() -> None:
    trusts = Trusts()
    one, other = trusts.of(ONE, CHECKED), trusts.of(OTHER, CHECKED)
    assert one.own is one.others is other.own is other.others
    assert one.own.verify_mode is ssl.CERT_REQUIRED


def test_what_is_not_checked_is_the_upstreams_own_host() -> None:
    trusts = Trusts()
    loose, strict = trusts.of(ONE, replace(CHECKED, skipverify=True)), trusts.of(OTHER, CHECKED)
    assert loose.context("one.test").verify_mode is ssl.CERT_NONE
    assert loose.context("other.test") is strict.context("other.test") is strict.context("one.test")
    assert strict.own.check_hostname


def test_a_file_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        Trusts().of(ONE, replace(CHECKED, ca=str(tmp_path / "absent")))
