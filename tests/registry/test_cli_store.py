"""`registry garbage-collect` and `registry doctor`, as a user types them, on a folder."""

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from registry import cli
from registry.commands.common import bytes_text, counted, seconds_text
from registry.commands.progress import Progress
from storage import layout
from storage.digest import Digest
from storage.drivers.filesystem import FilesystemDriver
from tests.storage.shelf import A, Shelf, age


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("REGISTRY_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def config(tmp_path: Path) -> str:
    (tmp_path / "data").mkdir()
    path = tmp_path / "config.yml"
    path.write_text(
        f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {tmp_path}/data}}}}\n"
    )
    return str(path)


def on_shelf(config: str, work: Callable[[Shelf], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        driver = FilesystemDriver(Path(config).parent / "data", scratch=layout.SCRATCH)
        try:
            return await work(Shelf(driver))
        finally:
            await driver.aclose()

    return asyncio.run(run())


async def filled(shelf: Shelf) -> dict[str, Digest]:
    made = {
        "kept": await shelf.image(A, b"kept", tag="t"),
        "untagged": await shelf.image(A, b"untagged"),
        "dead": await shelf.blob(A, b"dead" * 1000),
    }
    age(shelf.driver)
    return made


async def digests(shelf: Shelf) -> set[Digest]:
    return await shelf.digests()


def test_it_collects_and_says_what(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    made = on_shelf(config, filled)
    assert cli.main(["garbage-collect", "--dry-run", config]) == 0
    out, err = capsys.readouterr()
    assert f"blob eligible for deletion: {made['dead']}\n" in out
    assert "4 blobs marked" not in out
    assert "5 blobs marked, 1 blobs and 0 manifests eligible for deletion\n" in out
    assert "would remove 1 blob (4.0 kB), 0 manifests, 1 link and 0 abandoned uploads" in out
    assert err == ""
    assert made["dead"] in on_shelf(config, digests)
    assert cli.main(["garbage-collect", config]) == 0
    assert "\nremoved 1 blob (4.0 kB)" in capsys.readouterr().out
    assert made["dead"] not in on_shelf(config, digests)


@pytest.mark.parametrize(
    "words",
    [["-m"], ["--delete-untagged"], ["--delete-untagged=true", "--dry-run=false"], ["-m=true", "--quiet=false"]],
)
def test_the_flags_of_distribution(config: str, capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    made = on_shelf(config, filled)
    assert cli.main(["garbage-collect", *words, config]) == 0
    assert f"manifest eligible for deletion: a@{made['untagged']}\n" in capsys.readouterr().out
    assert made["untagged"] not in on_shelf(config, digests)
    assert made["kept"] in on_shelf(config, digests)


def test_quiet_is_quiet(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    on_shelf(config, filled)
    assert cli.main(["garbage-collect", "-m", "-q", "--grace", "0s", config]) == 0
    assert capsys.readouterr() == ("", "")


def test_what_is_young_stays_and_that_is_said(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    async def young(shelf: Shelf) -> None:
        await shelf.blob(A, b"young")

    on_shelf(config, young)
    assert cli.main(["garbage-collect", config]) == 0
    out, err = capsys.readouterr()
    assert "left: 1 blob (5 B) that nothing needs, younger than 24h; while nobody pushes, --grace 0s" in out
    assert err == ""
    assert cli.main(["garbage-collect", "--grace", "0s", config]) == 0
    out, err = capsys.readouterr()
    assert "removed 1 blob" in out
    assert "shorter than garbage.grace (24h)" in err


def test_where_nobody_can_push_no_grace_is_needed(
    config: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Distribution's manual: put the registry into read-only mode, then collect."""

    async def young(shelf: Shelf) -> None:
        await shelf.blob(A, b"young")

    on_shelf(config, young)
    monkeypatch.setenv("REGISTRY_STORAGE_MAINTENANCE_READONLY", '{"enabled":true}')
    assert cli.main(["garbage-collect", config]) == 0
    assert on_shelf(config, digests) == set()
    assert "if it is that of a replica" in capsys.readouterr().err


def test_an_unreadable_manifest_stops_it(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    made = on_shelf(config, filled)
    data = Path(config).parent / "data" / layout.blob_data(made["kept"])
    data.write_bytes(b"{}")
    assert cli.main(["garbage-collect", config]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(
        f"registry: garbage-collect stopped, nothing was removed: the manifest {made['kept']} in a is"
    )
    assert err.count("\n") == 1


@pytest.mark.parametrize("text", ["5", "x", "-1h", "1 day"])
def test_a_grace_has_a_unit(config: str, capsys: pytest.CaptureFixture[str], text: str) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["garbage-collect", f"--grace={text}", config])
    assert caught.value.code == 2
    assert "expected a duration" in capsys.readouterr().err


@pytest.mark.parametrize(("command", "status"), [("garbage-collect", 1), ("doctor", 2)])
@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"REGISTRY_STORAGE": "inmemory"}, "the inmemory storage lives inside the serving process"),
        ({"REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY": "/nowhere"}, "there is no folder /nowhere"),
        ({"REGISTRY_TAGS_MAXTAGS": "x"}, "tags.maxtags: expected a whole number"),
    ],
)
def test_where_there_is_nothing_to_work_on(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    status: int,
    environ: dict[str, str],
    said: str,
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert cli.main([command]) == status
    err = capsys.readouterr().err
    assert err.startswith("registry: ")
    assert said in err


def test_a_cache_is_known_by_its_upstream(
    config: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cache lacks what nobody has asked for: that is no damage, and nothing of it is garbage."""
    on_shelf(config, filled)
    monkeypatch.setenv("REGISTRY_PROXY_REMOTEURL", "https://upstream.invalid")
    kept = Digest.of(b"kept")
    (Path(config).parent / "data" / layout.blob_data(kept)).unlink()
    assert cli.main(["garbage-collect", config]) == 1
    err = capsys.readouterr().err
    assert "this is a pull-through cache (proxy.remoteurl)" in err
    assert "cache.size" in err
    assert cli.main(["doctor", config]) == 0
    assert "no damage found" in capsys.readouterr().out
    assert cli.main(["doctor", "--explain", str(kept), config]) == 0
    assert "it is not cached: the next pull fetches it\n" in capsys.readouterr().out
    monkeypatch.delenv("REGISTRY_PROXY_REMOTEURL")
    assert cli.main(["doctor", config]) == 1
    assert f"sha256:{kept.hex}, which is not in the store\n  spoils a:t\n" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["garbage-collect", "doctor"])
def test_an_empty_folder_may_be_the_wrong_one(config: str, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A new registry has one as well: it is no error."""
    assert cli.main([command, config]) == 0
    err = capsys.readouterr().err
    assert err.startswith(f"registry: {command}: there is nothing in {Path(config).parent / 'data'}; if the registry")
    assert "correct storage.filesystem.rootdirectory" in err


# doctor


def test_doctor_finds_repairs_and_says_so(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    on_shelf(config, filled)
    assert cli.main(["doctor", config]) == 0
    assert capsys.readouterr().out == "1 repository, 2 manifests and 6 blobs looked at: no damage found\n"
    link = Path(config).parent / "data" / layout.layer_link(A, Digest.of(b"kept"))
    link.write_bytes(b"")
    assert cli.main(["doctor", config]) == 1
    assert (
        f"a: damaged link: the link of blob {Digest.of(b'kept')} is damaged\n  spoils a:t\n  --fix "
        in capsys.readouterr().out
    )
    assert cli.main(["doctor", "--fix", config]) == 0
    out = capsys.readouterr().out
    assert "  repaired: --fix writes it again" in out
    assert out.endswith("looked at: 1 finding, 1 repaired\n")
    assert link.read_bytes() == str(Digest.of(b"kept")).encode()


def test_doctor_deep_as_json(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    on_shelf(config, filled)
    data = Path(config).parent / "data" / layout.blob_data(Digest.of(b"kept"))
    data.write_bytes(b"tpek")
    assert cli.main(["doctor", "--json", config]) == 0
    capsys.readouterr()
    assert cli.main(["doctor", "--deep", "--json", config]) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["clean"], found["blobs"], found["bytes"] > 4000) == (False, 6, True)
    assert [(each["kind"], each["digest"], each["fixed"]) for each in found["findings"]] == [
        ("damaged blob", str(Digest.of(b"kept")), False)
    ]
    (spoiled,) = found["findings"][0]["images"]
    assert (spoiled["repository"], spoiled["tag"], spoiled["through"]) == ("a", "t", "")
    assert (found["findings"][0]["more_images"], found["findings"][0]["cached"]) == (0, False)


def test_doctor_explains(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    made = on_shelf(config, filled)
    assert cli.main(["doctor", "--explain", str(Digest.of(b"kept")), config]) == 0
    out = capsys.readouterr().out
    assert f"  a@{made['kept']} names it\n" in out
    assert out.endswith("garbage-collect keeps it\n")
    assert cli.main(["doctor", "--explain", str(made["dead"]), config]) == 0
    assert "nothing needs it" in capsys.readouterr().out
    assert cli.main(["doctor", "--json", "--explain", str(made["kept"]), config]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["kept"]
    assert {"repository": "a", "how": "tag", "by": "t", "keeps": True} in found["uses"]
    (Path(config).parent / "data" / layout.blob_data(Digest.of(b"kept"))).unlink()
    assert cli.main(["doctor", "--explain", str(Digest.of(b"kept")), config]) == 1
    assert "what needs it is broken" in capsys.readouterr().out
    capsys.readouterr()
    assert cli.main(["doctor", "--explain", "sha256:x", config]) == 2
    assert "give the digest of a blob or a manifest" in capsys.readouterr().err
    assert cli.main(["doctor", "--explain", str(made["kept"]), "--fix", config]) == 2
    assert "leave out --fix" in capsys.readouterr().err


def test_doctor_does_not_repair_what_it_may_not_write(
    config: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REGISTRY_STORAGE_MAINTENANCE_READONLY", '{"enabled":true}')
    assert cli.main(["doctor", config]) == 0
    assert cli.main(["doctor", "--fix", config]) == 2
    assert "read-only" in capsys.readouterr().err


# How it is shown


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_on_a_terminal_is_one_line_that_goes() -> None:
    now, stream = [0.0], Terminal()
    progress = Progress(stream=stream, clock=lambda: now[0])
    progress.phase("marking", total=4)
    progress.step()
    assert stream.getvalue() == ""
    now[0] = 1.0
    progress.step()
    assert stream.getvalue() == "\r\x1b[Kmarking [############............] 2 of 4"
    progress.clear()
    progress.clear()
    assert stream.getvalue().endswith("2 of 4\r\x1b[K")


def test_progress_elsewhere_is_a_line_now_and_then() -> None:
    now, stream = [0.0], StringIO()
    progress = Progress(stream=stream, clock=lambda: now[0])
    progress.phase("listing blobs")
    for _ in range(25):
        now[0] += 1.0
        progress.step()
    assert stream.getvalue() == "listing blobs: 10\nlisting blobs: 20\n"
    progress = Progress(stream=stream, clock=lambda: now[0], quiet=True)
    now[0] += 100
    progress.step()
    assert stream.getvalue().count("\n") == 2


def test_numbers_for_people() -> None:
    assert [bytes_text(n) for n in (0, 999, 1000, 99_400, 999_600, 5 * 10**9, 2 * 10**18)] == [
        "0 B", "999 B", "1.0 kB", "99.4 kB", "1.0 MB", "5.0 GB", "2000 PB",
    ]  # fmt: skip
    assert [seconds_text(n) for n in (0.04, 59.9, 61, 3 * 3600 + 125)] == ["0.0 s", "59.9 s", "1 min 1 s", "3 h 2 min"]
    assert [counted(1, "blob"), counted(2, "blob"), counted(0, "copy", "copies")] == ["1 blob", "2 blobs", "0 copies"]
