"""What goes out: results of the core as messages, and their topics."""
