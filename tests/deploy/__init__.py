"""What lies in deploy/ is valid, and says what the registry understands."""
