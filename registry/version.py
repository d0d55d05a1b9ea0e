"""Which Moorage this is. Looked up only when somebody asks: it reads the metadata of the installed package."""


def version() -> str:
    from importlib import metadata

    return metadata.version("moorage")
