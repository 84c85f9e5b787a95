"""The way out: the spool that keeps rows until they are acknowledged, and what carries them."""
