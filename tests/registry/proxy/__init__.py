"""The upstream side of the proxy, against a scripted upstream on real sockets."""
