"""Commands that look after a store. Each is imported when it is asked for, and raises Refusal."""
