"""Collectors, run for real: distribution's on a folder that we wrote, and ours on one that it wrote, it as the control.

Nothing that is alive goes, and what ours frees is what theirs frees.
"""

import shutil
from pathlib import Path

import pytest

from tests.api import IMAGE, INDEX, digest_of, index

from .content import Content, answered, named_by_manifests, referrers_of
from .corpora import noise, push_common, push_multi, push_ours
from .peers import OURS, Lab, Program
from .scenarios import Collection, check_ours_is_kept

pytestmark = [pytest.mark.interop, pytest.mark.slow]


def test_their_collector_keeps_all_that_lives(lab: Lab, peer: Program) -> None:
    with lab.serving(OURS) as ours:
        collection = Collection(Content(), ours)
    before = lab.files()
    assert "eligible for deletion" in lab.garbage_collect(peer)
    check_ours_is_kept(before, lab.files())
    with lab.serving(OURS) as ours, lab.serving(peer) as theirs:
        collection.check(ours, theirs)


def test_after_our_deletes_their_collector_frees_the_space(lab: Lab, peer: Program) -> None:
    content = Content()
    with lab.serving(OURS) as ours:
        kept = content.image(ours, "a", noise("both", 100), noise("kept", 100), tag="kept")
        content.image(ours, "a", noise("both", 100), noise("gone", 100), tag="gone")
        content.without_manifest(ours, "a", content.of("a").tags["gone"])
    lab.garbage_collect(peer)
    del content.of("a").blobs[digest_of(noise("gone", 100))]
    with lab.serving(OURS) as ours:
        content.check(ours)
        assert content.of("a").tags == {"kept": kept["digest"]}
        answered(ours.get(f"/v2/a/blobs/{digest_of(noise('gone', 100))}"), 404)
    datas = {path for path in lab.files() if path.endswith("/data")}
    assert len(datas) == len(content.of("a").blobs) + len(content.of("a").manifests)


def test_dash_m_takes_what_has_no_tag_and_we_list_none_of_it(lab: Lab, peer: Program) -> None:
    """`-m` deletes untagged manifests, referrers among them (docs tell operators never to run it): we stay coherent."""
    content = Content()
    with lab.serving(OURS) as ours:
        tagged = content.image(ours, "a", noise("a", 100), tag="t")
        content.image(ours, "a", noise("b", 100), subject=tagged, artifactType="application/vnd.test")
        assert len(referrers_of(ours, "a", tagged["digest"])) == 1
    lab.garbage_collect(peer, "-m")
    with lab.serving(OURS) as ours:
        assert referrers_of(ours, "a", tagged["digest"]) == set()
        del content.of("a").blobs[digest_of(noise("b", 100))]
        content.of("a").manifests = {tagged["digest"]: content.of("a").manifests[tagged["digest"]]}
        content.check(ours)
        content.image(ours, "a", noise("b", 100), subject=tagged, artifactType="application/vnd.test")
        assert len(referrers_of(ours, "a", tagged["digest"])) == 1
        content.check(ours)


def test_dash_m_takes_children_of_an_index_only_in_2_8(lab: Lab, peer: Program) -> None:
    """Why operators must not run `-m` of 2.8 (it also stops at a repository without tags): 3 keeps the children."""
    content = Content()
    with lab.serving(OURS) as ours:
        push_multi(ours, content)
    held = content.of("library/multi")
    children = {digest for digest, (kind, _) in held.manifests.items() if kind == IMAGE}
    lab.garbage_collect(peer, "-m")
    with lab.serving(OURS) as ours:
        statuses = {ours.get(f"/v2/library/multi/manifests/{digest}").status_code for digest in children}
        assert statuses == ({200} if peer.recent else {404})
        for tag in held.tags:
            answered(ours.get(f"/v2/library/multi/manifests/{tag}"), 200)


def blobs_of(lab: Lab) -> set[str]:
    return {path for path in lab.files() if path.startswith("blobs/") and path.endswith("/data")}


def copied(lab: Lab, folder: Path) -> Lab:
    shutil.copytree(lab.data, folder / "data")
    return Lab(folder)


def test_ours_frees_on_their_folder_what_theirs_frees(lab: Lab, peer: Program, tmp_path: Path) -> None:
    content = Content()
    with lab.serving(peer) as theirs:
        push_common(theirs, content)
        content.image(theirs, "a", noise("l1", 5000), noise("gone", 100), tag="gone")
        content.without_manifest(theirs, "a", content.of("a").tags["gone"])
        content.of("a").tags.pop("gone", None)
        content.blob(theirs, "library/plain", noise("nobody names this", 2000))
    control = copied(lab, tmp_path / "control")
    before = blobs_of(lab)
    young = lab.garbage_collect(OURS)
    assert "removed 0 blobs" in young
    assert "--grace 0s takes them too" in young
    printed = lab.garbage_collect(OURS, "--grace", "0s")
    control.garbage_collect(peer)
    assert blobs_of(lab) == blobs_of(control)
    assert len(before) - len(blobs_of(lab)) == printed.count("blob eligible for deletion") >= 3
    named = named_by_manifests(content)
    for held in content.held.values():
        held.blobs = {digest: data for digest, data in held.blobs.items() if digest in named}
    held = content.of("a")
    held.blobs = {d: data for d, data in held.blobs.items() if d != digest_of(noise("gone", 100))}
    held.blobs.pop(digest_of(noise("l1", 5000)), None)
    with lab.serving(OURS) as ours, lab.serving(peer) as theirs:
        content.check(ours)
        content.check(theirs)


def test_our_dash_m_keeps_the_images_of_an_index(lab: Lab, peer: Program, tmp_path: Path) -> None:
    """Of which 2.8 deletes the children, the layers with them."""
    content = Content()
    with lab.serving(peer) as theirs:
        push_multi(theirs, content)
        untagged = content.image(theirs, "library/multi", noise("untagged", 100))
    control = copied(lab, tmp_path / "control")
    lab.garbage_collect(OURS, "-m", "--grace", "0s")
    control.garbage_collect(peer, "-m")
    assert blobs_of(control) <= blobs_of(lab)
    assert (blobs_of(control) == blobs_of(lab)) == peer.recent
    held = content.of("library/multi")
    del held.manifests[untagged["digest"]]
    del held.blobs[digest_of(noise("untagged", 100))]
    with lab.serving(OURS) as ours, lab.serving(peer) as theirs:
        content.check(ours)
        content.check(theirs)
        answered(ours.get(f"/v2/library/multi/manifests/{untagged['digest']}"), 404)


def test_a_platform_that_one_repository_deleted_keeps_its_layers_in_another(
    lab: Lab, peer: Program, tmp_path: Path
) -> None:
    """distribution 3.1.1 looks into an image once for all repositories, and not at all in the one that lacks it: the
    layers of the other one, tagged and whole, go (its #4939 tells of such losses). Ours looks in each."""
    content = Content()
    with lab.serving(OURS) as ours:
        for name in ("a", "b"):
            child = content.image(ours, name, noise("layer", 1000))
            content.manifest(ours, name, index(child), INDEX, tag="t")
        content.without_manifest(ours, "a", child["digest"])
    control = copied(lab, tmp_path / "control")
    _, hexadecimal = digest_of(noise("layer", 1000)).split(":")
    layer = f"blobs/sha256/{hexadecimal[:2]}/{hexadecimal}/data"
    assert layer in blobs_of(control)
    lab.garbage_collect(OURS, "-m", "--grace", "0s")
    control.garbage_collect(peer, "-m")
    assert layer not in blobs_of(control)
    content.of("a").blobs.clear()
    with lab.serving(OURS) as ours:
        content.check(ours)


def test_our_dash_m_keeps_referrers_and_doctor_finds_nothing(lab: Lab) -> None:
    content = Content()
    with lab.serving(OURS) as ours:
        push_common(ours, content)
        referrers = push_ours(ours, content)
    lab.garbage_collect(OURS, "-m", "--grace", "0s")
    with lab.serving(OURS) as ours:
        for subject, found in referrers.items():
            assert referrers_of(ours, "library/ours", subject) == found
