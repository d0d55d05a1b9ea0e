"""What the conformance suite asks for, and what goes beyond it, per handler."""
