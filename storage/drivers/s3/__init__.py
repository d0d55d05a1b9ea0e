"""The S3 driver: objects in a bucket, in distribution's layout.

settings.py   what `storage.s3` may say, parsed once
bucket.py     one bucket by its REST verbs: a call here is one request there, retries aside
driver.py     StorageDriver over a bucket: stages, lists in order, conditional writes
"""
