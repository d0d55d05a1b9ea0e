"""One folder, several registries: what one wrote the other serves, byte for byte, and writes the same files."""

import pytest

from tests.api import digest_of, image

from .content import Content, answered, catalog_of, check_blob, check_manifest, referrers_of, tags_of
from .corpora import noise, push_common, push_ours
from .peers import OURS, Lab, Program
from .scenarios import delete_with_ours, delete_with_theirs, push_in_turns

pytestmark = [pytest.mark.interop, pytest.mark.slow]

FOREIGN = ("_moorage", "_referrers", "_uploads")


def test_a_peer_serves_what_we_wrote(lab: Lab, peer: Program) -> None:
    content = Content()
    with lab.serving(OURS) as ours:
        push_common(ours, content)
        push_ours(ours, content)
        content.check(ours)
        with lab.serving(peer) as theirs:
            content.check(theirs)


def test_we_serve_what_a_peer_wrote(lab: Lab, peer: Program) -> None:
    content = Content()
    with lab.serving(peer) as theirs:
        push_common(theirs, content)
        content.check(theirs)
        with lab.serving(OURS) as ours:
            content.check(ours)
    before = lab.files()
    with lab.serving(OURS, storage=read_only(lab)) as ours:
        content.check(ours)
        assert referrers_of(ours, "library/plain", digest_of(b"nothing")) == set()
    assert lab.files() == before  # and a read-only registry of ours leaves nothing behind


def test_both_write_the_same_files(lab: Lab, peer: Program) -> None:
    labs = {program: Lab(lab.folder / program.name) for program in (OURS, peer)}
    for program, own in labs.items():
        with own.serving(program) as http:
            push_common(http, Content())
    ours, theirs = labs[OURS].files(*FOREIGN), labs[peer].files(*FOREIGN)
    assert sorted(ours) == sorted(theirs)
    assert ours == theirs
    assert not labs[OURS].files("_moorage", "_referrers").keys() - ours.keys()  # no session is left


def test_pushes_to_both_in_turns_make_one_registry(lab: Lab, peer: Program) -> None:
    with lab.serving(OURS) as ours, lab.serving(peer) as theirs:
        push_in_turns(Content(), ours, theirs)


def test_what_we_delete_is_gone_for_the_peer(lab: Lab, peer: Program) -> None:
    with lab.serving(OURS) as ours, lab.serving(peer) as theirs:
        delete_with_ours(Content(), ours, theirs)
        # not even an empty folder is left where a peer lists tags by folders
        assert not (lab.store / "repositories/a/_manifests/tags").exists()


def test_what_a_peer_deletes_is_gone_for_us(lab: Lab, peer: Program) -> None:
    with lab.serving(OURS) as ours, lab.serving(peer) as theirs:
        delete_with_theirs(Content(), ours, theirs, tags=peer.recent)


def test_what_a_crashed_peer_leaves_is_no_content(lab: Lab, peer: Program) -> None:
    """Temporary files, emptied folders, cut links: seen by nobody who asks us, and healed by the next push."""
    content = Content()
    with lab.serving(peer) as theirs:
        content.image(theirs, "a", noise("a", 100), tag="good")
        body = content.of("a").manifests[content.of("a").tags["good"]][1]
    manifests = lab.store / "repositories/a/_manifests"
    (manifests / "tags/emptied").mkdir()
    (manifests / "tags/half/current").mkdir(parents=True)
    (manifests / "tags/half/current/link.0198c3d2-0000-7000-8000-000000000000.tmp").write_text("sha256:")
    (manifests / "tags/.idx").write_text("not a folder")
    (manifests / "tags/good/current/link.0198c3d2-0000-7000-8000-000000000001.tmp").write_text("x")
    (lab.store / "repositories/only-folders/_manifests/tags").mkdir(parents=True)
    (lab.store / "repositories/no-manifests/_uploads").mkdir(parents=True)
    (lab.store / "blobs/sha256/ab").mkdir(exist_ok=True)
    (lab.store / "blobs/sha256/ab/data.0198c3d2-0000-7000-8000-000000000002.tmp").write_text("x")
    with lab.serving(OURS) as ours:
        assert tags_of(ours, "a") == ["good"]
        assert catalog_of(ours) == {"a"}
        answered(ours.get("/v2/a/manifests/half"), 404)
        answered(ours.get("/v2/a/manifests/emptied"), 404)
        content.check(ours)
        for tag in ("half", "emptied"):
            content.manifest(ours, "a", body, tag=tag)
        content.check(ours)


def test_damaged_links_are_healed_by_a_push(lab: Lab, peer: Program) -> None:
    """distribution before 3.1 left empty links and manifests after a power cut."""
    content = Content()
    with lab.serving(peer) as theirs:
        pushed = content.image(theirs, "a", noise("a", 100), tag="t")
    body = content.of("a").manifests[pushed["digest"]][1]
    hexa = pushed["digest"].removeprefix("sha256:")
    links = [
        "repositories/a/_manifests/tags/t/current/link",
        f"repositories/a/_manifests/revisions/sha256/{hexa}/link",
        f"repositories/a/_layers/sha256/{digest_of(noise('a', 100)).removeprefix('sha256:')}/link",
        f"blobs/sha256/{hexa[:2]}/{hexa}/data",
    ]
    for link in links:
        (lab.store / link).write_bytes(b"")
    with lab.serving(OURS) as ours:
        answered(ours.get("/v2/a/manifests/t"), 404)
        answered(ours.get(f"/v2/a/manifests/{pushed['digest']}"), 404)
        answered(ours.get(f"/v2/a/blobs/{digest_of(noise('a', 100))}"), 404)
        content.image(ours, "a", noise("a", 100))
        content.manifest(ours, "a", body, tag="t")
        content.check(ours)
    with lab.serving(peer) as theirs:
        content.check(theirs)
    # a newline behind the digest, as an editor leaves it: distribution answers 500, we read it
    for link in links[:3]:
        with (lab.store / link).open("ab") as file:
            file.write(b"\n")
    with lab.serving(OURS) as ours:
        content.check(ours)


def test_types_are_told_from_the_bytes(lab: Lab, peer: Program) -> None:
    """distribution stores no media type; what has none inside is known by its structure."""
    content = Content()
    with lab.serving(peer) as theirs:
        push_common(theirs, content)
    with lab.serving(OURS) as ours:
        held = content.of("library/plain")
        check_manifest(ours, "library/plain", "bare", held.tags["bare"], *held.manifests[held.tags["bare"]])
        found = {held.manifests[digest][0] for held in content.held.values() for digest in held.manifests}
        assert len(found) == 4  # both of OCI, both of Docker; check() has compared each
        assert b"mediaType" not in image(b"", (), mediaType=None)[:30]
        check_blob(ours, "library/plain", digest_of(b""), b"")


def read_only(lab: Lab) -> dict[str, object]:
    return {
        "filesystem": {"rootdirectory": str(lab.data)},
        "maintenance": {"readonly": {"enabled": True}},
    }
