"""F6: no file descriptor is left, and names that are longer than a file's can be."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.api import Api, error_of


@pytest.mark.slow
def test_without_descriptors_every_answer_is_503_and_then_all_is_well(tmp_path: Path) -> None:
    """In a process of its own: the limit holds for all that a process does."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.descriptors", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr[-4000:]
    said = json.loads(done.stdout)
    assert {what: status for what, status in said["without"].items() if status != 503} == {}
    assert said["leaked"] == 0
    assert said["tag"]
    assert said["after"] == {
        "GET manifest": 200,
        "GET blob": 200,
        "GET tags": 200,
        "GET referrers": 200,
        "GET catalog": 200,
        "POST": 202,
        "PATCH": 202,
        # since the PATCH the session stands at byte 5, where this Location still says 0
        "PUT blob": 416,
        "PUT manifest": 201,
        "DELETE tag": 202,
    }


@pytest.mark.parametrize("component", [255, 256, 300, 5000])
async def test_names_that_no_file_can_have(api: Api, component: int) -> None:
    name = "a" * component
    response = await api.http.post(f"/v2/{name}/blobs/uploads/")
    if component <= 255:
        assert response.status_code == 202
        await api.push_image(name, "t" * 128)
        assert await api.tags(name) == ["t" * 128]
    else:
        assert error_of(response) == (400, "NAME_INVALID")
        assert error_of(await api.get(f"/v2/{name}/tags/list")) == (400, "NAME_INVALID")


@pytest.mark.parametrize("length", [129, 256, 5000])
async def test_references_that_no_file_can_have(api: Api, length: int) -> None:
    await api.push_image("a", "t")
    response = await api.get(f"/v2/a/manifests/{'t' * length}")
    assert error_of(response) == (404, "MANIFEST_UNKNOWN")
    put = await api.http.put(f"/v2/a/manifests/{'t' * length}", content=b"{}")
    assert error_of(put) == (400, "MANIFEST_INVALID")
    for path in (f"blobs/sha256:{'0' * length}", f"blobs/uploads/{'0' * length}"):
        assert 400 <= (await api.get(f"/v2/a/{path}")).status_code < 500
