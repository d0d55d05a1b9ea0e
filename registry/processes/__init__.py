"""Several processes of one registry: workers, who watches them, and what is reloaded in all of them."""
