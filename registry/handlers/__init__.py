"""What the endpoints do: parse, call the Repository, respond. Errors are raised; registry/errors.py answers them."""
