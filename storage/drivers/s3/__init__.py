"""The S3 driver: objects in a bucket, in distribution's layout.

settings.py      what `storage.s3` may say, parsed once
endpoint.py      where a bucket is: hosts and paths
sign.py          signature version 4, in headers and URLs
credentials.py   from the settings, or from the machine, refreshed while requests go on
clock.py         the store's clock
xml.py           S3's XML, read and written
errors.py        S3's faults to our errors, and what the operator's log says of them
http.py          the pool of connections
calls.py         one request: signed, sent, repeated where that is safe
parts.py         the memory of a part while it is received
body.py          the body of an answer to GET
bucket.py        one bucket by its REST verbs: a call here is one request there, retries aside
rest.py          bucket.py over HTTP
driver.py        StorageDriver over a bucket: stages, lists in order, conditional writes
"""
