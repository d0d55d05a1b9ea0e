"""Multipart uploads that nobody goes on with: what a process has left that was killed while it wrote straight to a key.

Lists do not show them, and their parts are paid for. What the store lists of them says when they were begun, and only
their parts when they last grew, so an upload that was begun long ago costs a call more.
"""

from storage.driver import Unfinished
from storage.drivers.s3.bucket import Bucket, Upload, UploadGone
from storage.drivers.s3.keys import Keys


async def list_unfinished(bucket: Bucket, keys: Keys, prefix: str, before: float) -> list[Unfinished]:
    """As StorageDriver.list_unfinished. A store that lists uploads of one whole key alone (MinIO) shows none."""
    found = []
    for upload in await bucket.list_uploads(keys.below(prefix)):
        key = keys.ours(upload.key)
        if key is not None and upload.started <= before:
            left = await _looked_at(bucket, upload, key)
            if left is not None and left.modified <= before:
                found.append(left)
    return found


async def _looked_at(bucket: Bucket, upload: Upload, key: str) -> Unfinished | None:
    try:
        parts = await bucket.list_parts(upload.key, upload.id)
    except UploadGone:  # completed or aborted since it was listed
        return None
    modified = max([upload.started, *(part.modified for part in parts)])
    return Unfinished(key, sum(part.size for part in parts), modified, upload.id)
