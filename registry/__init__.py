"""The OCI distribution API over storage/; docs/design.md draws it.

app.py        create_app(config): the ASGI application, the one place where parts are joined
dispatch.py   from a request to a handler
handlers/     one module per kind of thing
errors.py     every refusal, in one table
serving/      serves an ASGI application: sockets, TLS, limits, signals
processes/    several of them, side by side
watching/     health, logs, traces: what operators see
cli.py        the command line; its words are in arguments.py
commands/     one module per command
"""
