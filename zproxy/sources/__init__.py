"""Where mesh state comes from."""
