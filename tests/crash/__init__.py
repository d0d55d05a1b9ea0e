"""A registry that is killed with SIGKILL while clients push, over and over, on one folder."""
