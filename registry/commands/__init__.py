"""What the commands do, a module each. Each is imported when it is asked for, and raises Refusal."""
