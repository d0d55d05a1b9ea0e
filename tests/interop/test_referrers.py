"""Referrers that came through registries which do not know the API, and through old clients' fallback tags."""

import json
from typing import Any

import pytest

from tests.api import INDEX, digest_of, index

from .content import Content, answered, check_blob, check_manifest, referrer, referrers_of
from .corpora import noise
from .peers import OURS, Lab, Program

pytestmark = [pytest.mark.interop, pytest.mark.slow]

AT_ONCE: dict[str, Any] = {"referrers": {"rescan": "1ns"}}
"""Look for other people's referrers at every listing. distribution does not know the key and passes over it."""


def test_referrers_that_a_peer_took_are_found(lab: Lab, peer: Program) -> None:
    content = Content()
    with lab.serving(peer) as theirs, lab.serving(OURS) as ours:
        subject = content.image(theirs, "a", noise("a", 100), tag="t")
        first = content.manifest(theirs, "a", referrer(subject, "application/vnd.test.one", by="them"))
        # nothing of ours has been there before: the first listing looks
        assert referrers_of(ours, "a", subject["digest"]) == {first["digest"]}
        [listed] = answered(ours.get(f"/v2/a/referrers/{subject['digest']}"), 200).json()["manifests"]
        assert listed == {**first, "artifactType": "application/vnd.test.one", "annotations": {"by": "them"}}
        # a referrer that is pushed to us is listed at once
        second = content.manifest(ours, "a", referrer(subject, "application/vnd.test.two"))
        assert referrers_of(ours, "a", subject["digest"]) == {first["digest"], second["digest"]}
        content.check(theirs)


def test_a_rescan_finds_what_a_peer_took_later(lab: Lab, peer: Program) -> None:
    content = Content()
    with lab.serving(peer, **AT_ONCE) as theirs, lab.serving(OURS, **AT_ONCE) as ours:
        subject = content.image(theirs, "a", noise("a", 100), tag="t")
        assert referrers_of(ours, "a", subject["digest"]) == set()
        expected = set()
        for kind in ("one", "two", "three"):
            pushed = content.manifest(theirs, "a", referrer(subject, f"application/vnd.test.{kind}"))
            expected.add(pushed["digest"])
            assert referrers_of(ours, "a", subject["digest"]) == expected
        content.without_manifest(theirs, "a", max(expected))
        assert referrers_of(ours, "a", subject["digest"]) == expected - {max(expected)}


def test_a_fallback_tag_is_merged(lab: Lab, peer: Program) -> None:
    """An old client, told 404 by the peer, keeps its list under the tag `sha256-<hex>` (spec: Referrers Tag Schema)."""
    content = Content()
    with lab.serving(peer) as theirs:
        subject = content.image(theirs, "a", noise("a", 100), tag="t")
        answered(theirs.get(f"/v2/a/referrers/{subject['digest']}"), 404)
        old = content.image(theirs, "a", noise("signature", 50))  # without `subject`: only the tag knows
        gone = {**old, "digest": digest_of(b"deleted long ago")}
        listed = [{**old, "artifactType": "application/vnd.test.old", "annotations": {"k": "v"}}]
        fallback = subject["digest"].replace(":", "-")
        # distribution checks what an index names: so first without the one that is not there
        content.manifest(theirs, "a", index(*listed), INDEX, tag=fallback)
        new = content.manifest(theirs, "a", referrer(subject, "application/vnd.test.new"))
    with lab.serving(OURS, validation={"manifests": {"sparse": True}}) as ours:
        assert referrers_of(ours, "a", subject["digest"]) == {old["digest"], new["digest"]}
        found = answered(ours.get(f"/v2/a/referrers/{subject['digest']}"), 200).json()["manifests"]
        assert listed[0] in found
        filtered = ours.get(f"/v2/a/referrers/{subject['digest']}?artifactType=application/vnd.test.old")
        assert answered(filtered, 200).json()["manifests"] == listed
        content.manifest(ours, "a", index(*listed, gone), INDEX, tag=fallback)
        assert referrers_of(ours, "a", subject["digest"]) == {old["digest"], new["digest"]}


def test_aliases_of_sha512_are_followed_and_never_handed_on(lab: Lab, peer: Program) -> None:
    """distribution keeps a blob pushed as sha512 under sha256, behind a link; its collectors take copies."""
    content = Content()
    blob = noise("alias", 3000)
    strong, weak = digest_of(blob, "sha512"), digest_of(blob)
    with lab.serving(peer) as theirs:
        content.image(theirs, "a", noise("a", 100), tag="t")
        content.blob(theirs, "a", blob, "sha512")
    link = f"repositories/a/_layers/sha512/{strong.removeprefix('sha512:')}/link"
    assert lab.files()[link] == weak.encode()  # it is an alias
    with lab.serving(OURS) as ours:
        check_blob(ours, "a", strong, blob)
        head = answered(ours.head(f"/v2/a/blobs/{strong}"), 200)
        assert head.headers["Docker-Content-Digest"] == strong
        answered(ours.post(f"/v2/b/blobs/uploads/?mount={strong}&from=a"), 202)
        answered(ours.get(f"/v2/b/blobs/{strong}"), 404)
        content.blob(ours, "b", blob, "sha512")
        check_blob(ours, "b", strong, blob)
        content.image(ours, "b", noise("b", 100), tag="t")
    for path, data in lab.files().items():
        if "_layers/sha512" in path and path != link:
            assert data == strong.encode()


def test_an_index_that_names_a_subject_keeps_its_bytes(lab: Lab, peer: Program) -> None:
    content = Content()
    with lab.serving(peer) as theirs:
        subject = content.image(theirs, "a", noise("a", 100), tag="t")
        child = content.image(theirs, "a", noise("child", 100))
        body = json.dumps(
            {
                "subject": subject,
                "schemaVersion": 2,
                "mediaType": INDEX,
                "artifactType": "application/vnd.test.index",
                "manifests": [child],
                "org.example.custom": {"kept": [1, 2.50, "é"]},
            },
            indent=7,
        ).encode()
        pushed = content.manifest(theirs, "a", body, INDEX)
    with lab.serving(OURS) as ours:
        check_manifest(ours, "a", pushed["digest"], pushed["digest"], INDEX, body)
        assert referrers_of(ours, "a", subject["digest"]) == {pushed["digest"]}
        content.check(ours)
